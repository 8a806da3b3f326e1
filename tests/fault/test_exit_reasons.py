"""What the daemon knows of a producer that ended: the class, and the sample that it had in hand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import augd
from augd.client.status import status as ask_status
from augd.dataset.scan.build_index import load_or_build
from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from tests.support.lone_producer import ROWS, LoneProducer
from tests.support.processes import await_true, producers_of
from tests.support.scenes import SMALL, make_folder, opencv_decodes

VICTIM = 11  # in an order without shuffling, the sample is the row

HOOK = """
import sys
if "augd.server.producer" in sys.orig_argv:
    import ctypes, os, signal, time
    import cv2
    imdecode = cv2.imdecode
    calls = 0

    def hooked(data, flags):
        global calls
        calls += 1
        if calls == {victim} + 1:
            {deed}
        return imdecode(data, flags)

    cv2.imdecode = hooked
    from augd.dataset.readers.source import FolderSource
    {more}
"""


@pytest.fixture(scope="module", autouse=True)
def without_kernels() -> Iterator[None]:
    with opencv_decodes():
        yield


@pytest.fixture
def start_producer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LoneProducer]]:
    """Start a producer that does this in the middle of decoding one sample."""
    index = load_or_build(make_folder(tmp_path / "set", num_classes=1, per_class=ROWS))
    employers: list[LoneProducer] = []

    def start(deed: str, more: str = "pass") -> LoneProducer:
        hook = HOOK.format(deed=deed, more=more, victim=VICTIM)
        (tmp_path / "sitecustomize.py").write_text(hook)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
        employers.append(LoneProducer(index))
        return employers[-1]

    yield start
    for one in employers:
        one.close()
    index.close()


@pytest.mark.clause("P-77")
@pytest.mark.parametrize(
    ("deed", "how"),
    [
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGBUS)", "SIGBUS"),
    ],
)
def test_a_crash_in_a_decoder_names_its_sample(start_producer, deed, how):
    one = start_producer(deed)
    one.lease(99)
    assert one.await_end() == (ExitReason.SIGNAL, (99, VICTIM, VICTIM))
    assert one.spawned.how_ended() == how


@pytest.mark.clause("P-77")
def test_a_kill_between_rows_names_nothing(start_producer):
    one = start_producer("pass")
    one.lease(7)
    await_true(lambda: one.has_said(msg.Done), 20, "the lease is done")
    os.kill(one.spawned.process.pid, signal.SIGKILL)
    assert one.await_end() == (ExitReason.OUTSIDE, None)


def test_a_kill_from_outside_in_mid_row_names_the_row_and_blames_nobody(start_producer):
    one = start_producer("time.sleep(60)")
    one.lease(5)
    at = (5, VICTIM, VICTIM)
    await_true(lambda: one.spawned.current_sample() == at, 20, "it decodes the victim")
    os.kill(one.spawned.process.pid, signal.SIGKILL)
    ending, current_sample = one.await_end()
    assert (ending, current_sample) == (ExitReason.OUTSIDE, at)
    assert not ending.is_suspect


def test_a_producer_that_hangs_and_one_that_was_stopped_are_told_apart(start_producer):
    ends = []
    for is_stopped in (False, True):
        one = start_producer("time.sleep(60)")
        one.lease(5)
        await_true(lambda one=one: one.spawned.current_sample() is not None, 20, "it works")
        await_true(
            lambda one=one: one.spawned.current_sample() == (5, VICTIM, VICTIM), 20, "it hangs"
        )
        if is_stopped:
            os.kill(one.spawned.process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, one.spawned.process.pid, os.WSTOPPED | os.WNOWAIT)
        one.spawned.kill()
        one.spawned.kill()  # a second one, to a process that is dying, finds nothing out
        ends.append(one.await_end())
    at = (5, VICTIM, VICTIM)
    assert ends == [(ExitReason.KILLED, at), (ExitReason.STOPPED, at)]


def test_an_error_and_a_drain_have_nothing_in_hand(start_producer):
    one = start_producer("sys.exit(3)")  # not an error of the lease: it ends the producer
    one.lease(5)
    assert one.await_end() == (ExitReason.ERROR, None)
    assert one.has_said(msg.LastWords)
    one = start_producer("pass")
    one.lease(5)
    one.tell(msg.Drain())
    assert one.await_end() == (ExitReason.DRAINED, None)


@pytest.mark.clause("P-77")
def test_waiting_for_a_file_is_no_samples_fault(start_producer):
    """The disk never answers: the producer is silent, with nothing in hand."""
    one = start_producer("pass", more="FolderSource.read = lambda self, sample: time.sleep(60)")
    one.lease(5)
    await_true(lambda: one.has_said(msg.Ready), 20, "it is up")
    for _ in range(20):
        assert one.spawned.current_sample() is None
        time.sleep(0.01)
    one.spawned.kill()
    assert one.await_end() == (ExitReason.KILLED, None)


REPORTING = """
import sys
if "augd.server.producer" in sys.orig_argv:
    import os, signal
    import cv2
    imdecode = cv2.imdecode

    def deadly(data, flags):
        if len(data) == {size_bytes}:
            os.kill(os.getpid(), signal.SIGSEGV)
        return imdecode(data, flags)

    cv2.imdecode = deadly
elif "serve" in sys.orig_argv:
    from augd.server.daemon.broker import broker, events
    handle = broker.Broker.handle

    def reporting(self, event, now):
        if isinstance(event, events.Reaped):
            with open({report!r}, "a") as file:
                held = event.current_sample
                print(event.how, event.kind, held and held[2], file=file)
        return handle(self, event, now)

    broker.Broker.handle = reporting
"""


def is_idle(address: str) -> bool:
    (only,) = ask_status(address, 5)["producers"]
    return only["state"] == "ready" and not only["leases"]


def test_the_daemon_hands_the_class_and_the_sample_to_the_broker(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=ROWS)
    sizes = [path.stat().st_size for path in sorted(folder.rglob("*.jpg"))]
    victim = next(place for place, size in enumerate(sizes) if sizes.count(size) == 1)
    report = tmp_path / "report"
    hook = REPORTING.format(size_bytes=sizes[victim], report=str(report))
    (tmp_path / "sitecustomize.py").write_text(hook)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    with augd.serve({"small": folder}, producers=1) as served:
        with augd.connect(served.address, recipe=SMALL, batch_size=ROWS) as stream:
            batch = next(stream.epoch(0))
            assert batch.ids[~batch.valid].tolist() == [victim]
            batch.release()
        said = report.read_text().splitlines()
        await_true(lambda: is_idle(served.address), 10, "it is replaced")
        os.kill(producers_of(served.pid)[0], signal.SIGKILL)
        await_true(lambda: len(report.read_text().splitlines()) > len(said), 10, "it is reaped")
        await_true(lambda: is_idle(served.address), 10, "it is replaced once more")
    assert said == [f"SIGSEGV signal {victim}"] * 2
    assert report.read_text().splitlines()[len(said)] == "SIGKILL outside None"
    assert report.read_text().splitlines()[-1] == "exit status 0 drained None"
