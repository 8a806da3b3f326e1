"""What the daemon knows of a producer that ended: the class, and the sample that it had in hand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from augd.dataset.index import IndexFile, load_or_build
from augd.deaths import MemoryKills
from augd.hire import Hired, hire
from augd.plan.recipe import expand, parse_recipe
from augd.transport import link
from augd.transport.arena import make_arena
from augd.wire import codec
from augd.wire import messages as msg
from augd.wire.ending import Ending
from augd.wire.slot import slot_layout
from tests.fault.processes import await_true
from tests.scenes import SMALL, make_folder

ROWS = 16
VICTIM = 11  # in an order without shuffling, the sample is the row

HOOK = """
import sys
if "augd.produce" in sys.orig_argv:
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
    from augd.pixels.source import FolderSource
    {more}
"""


class Employer:
    """A daemon's hands without a daemon: one producer, one data set, one stream."""

    def __init__(self, index: IndexFile) -> None:
        self.hired: Hired = hire()
        self._heard: list[msg.FromProducer] = []
        arrays, slot_bytes = slot_layout(ROWS, 32, 32)
        self._arena = make_arena("augd-arena", slot_bytes)
        use = msg.UseStream(
            stream=1,
            dataset="small",
            recipe=expand(parse_recipe(SMALL)),
            layout=msg.Layout(ROWS),
            seed=0,
            shuffle=False,
            arrays=arrays,
            slot_bytes=slot_bytes,
            num_slots=1,
        )
        self.tell(msg.UseDataset("small", str(index.root), index.digest), index.fd, index.dims_fd)
        self.tell(use, self._arena)

    def tell(self, message: msg.ToProducer, *fds: int) -> None:
        assert link.send(self.hired.link, codec.encode(message), fds)

    def lease(self, number: int) -> None:
        self.tell(msg.Lease(number, 1, 0, 0, 0, ROWS, 0))

    def has_said(self, kind: type[msg.Message]) -> bool:
        try:
            while (received := link.receive(self.hired.link, wait=False)) is not None:
                self._heard.append(codec.decode_from_producer(received[0]))
        except EOFError:
            pass
        return any(isinstance(message, kind) for message in self._heard)

    def await_end(self) -> tuple[Ending, tuple[int, int, int] | None]:
        self.hired.process.wait(20)
        return self.hired.ending(MemoryKills([])), self.hired.crumb()

    def close(self) -> None:
        self.hired.process.kill()
        self.hired.process.wait()
        self.hired.close()
        os.close(self._arena)


@pytest.fixture
def employ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Employer]]:
    """Hire a producer that does this deed in the middle of decoding one sample."""
    index = load_or_build(make_folder(tmp_path / "set", num_classes=1, per_class=ROWS))
    employers: list[Employer] = []

    def start(deed: str, more: str = "pass") -> Employer:
        hook = HOOK.format(deed=deed, more=more, victim=VICTIM)
        (tmp_path / "sitecustomize.py").write_text(hook)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
        employers.append(Employer(index))
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
def test_a_crash_in_a_decoder_names_its_sample(employ, deed, how):
    one = employ(deed)
    one.lease(99)
    assert one.await_end() == (Ending.SIGNAL, (99, VICTIM, VICTIM))
    assert one.hired.how_ended() == how


@pytest.mark.clause("P-77")
def test_a_kill_between_rows_names_nothing(employ):
    one = employ("pass")
    one.lease(7)
    await_true(lambda: one.has_said(msg.Done), 20, "the lease is done")
    os.kill(one.hired.process.pid, signal.SIGKILL)
    assert one.await_end() == (Ending.OUTSIDE, None)


def test_a_kill_from_outside_in_mid_row_names_the_row_and_blames_nobody(employ):
    one = employ("time.sleep(60)")
    one.lease(5)
    at = (5, VICTIM, VICTIM)
    await_true(lambda: one.hired.crumb() == at, 20, "it decodes the victim")
    os.kill(one.hired.process.pid, signal.SIGKILL)
    ending, crumb = one.await_end()
    assert (ending, crumb) == (Ending.OUTSIDE, at)
    assert not ending.is_suspect


def test_a_producer_that_hangs_and_one_that_was_stopped_are_told_apart(employ):
    ends = []
    for is_stopped in (False, True):
        one = employ("time.sleep(60)")
        one.lease(5)
        await_true(lambda one=one: one.hired.crumb() is not None, 20, "it works")
        await_true(lambda one=one: one.hired.crumb() == (5, VICTIM, VICTIM), 20, "it hangs")
        if is_stopped:
            os.kill(one.hired.process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, one.hired.process.pid, os.WSTOPPED | os.WNOWAIT)
        one.hired.kill()
        one.hired.kill()  # a second one, to a process that is dying, finds nothing out
        ends.append(one.await_end())
    at = (5, VICTIM, VICTIM)
    assert ends == [(Ending.KILLED, at), (Ending.STOPPED, at)]


def test_an_error_and_a_drain_have_nothing_in_hand(employ):
    one = employ("sys.exit(3)")  # not an error of the lease: it ends the producer
    one.lease(5)
    assert one.await_end() == (Ending.ERROR, None)
    assert one.has_said(msg.LastWords)
    one = employ("pass")
    one.lease(5)
    one.tell(msg.Drain())
    assert one.await_end() == (Ending.DRAINED, None)


@pytest.mark.clause("P-77")
def test_waiting_for_a_file_is_no_samples_fault(employ):
    """The disk never answers: the producer is silent, with nothing in hand."""
    one = employ("pass", more="FolderSource.read = lambda self, sample: time.sleep(60)")
    one.lease(5)
    await_true(lambda: one.has_said(msg.Ready), 20, "it is up")
    for _ in range(20):
        assert one.hired.crumb() is None
        time.sleep(0.01)
    one.hired.kill()
    assert one.await_end() == (Ending.KILLED, None)
