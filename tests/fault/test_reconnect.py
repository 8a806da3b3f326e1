"""A daemon goes away under a running stream: the stream waits, and goes on where it stood."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import augd
from tests.support.processes import await_true, family_of, is_alive
from tests.support.programs import begin_by_hand, finish, follow, free_port, kill, start_by_hand
from tests.support.scenes import SMALL, make_folder

Addressed = Callable[[Path], str]


def by_path(folder: Path) -> str:
    return f"ipc://{folder}/d"


def by_port(folder: Path) -> str:
    return f"tcp://127.0.0.1:{free_port()}"


TRANSPORTS = pytest.mark.parametrize(
    ("addressed", "transport"),
    [(by_path, "memfd"), (by_path, "frames"), (by_port, "frames")],
    ids=["memfd", "frames by path", "frames by port"],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=60)


class Phoenix:
    """A daemon that is started again and again at one address."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address
        self.process = start_by_hand(folder, address, "--producers", "2")
        self.num_deaths = 0

    def die(self, number: int = signal.SIGKILL) -> None:
        """End it, see that nothing is left, and begin a new one that is not waited for."""
        relatives = family_of(self.process.pid)
        self.process.send_signal(number)
        finish(self.process)
        await_true(lambda: not any(map(is_alive, relatives)), 1.0, "its children are gone")
        self.num_deaths += 1
        self.process = begin_by_hand(self._folder, self._address, "--producers", "2")

    def close(self) -> None:
        kill(self.process)


@pytest.fixture
def risen(folder: Path, tmp_path: Path) -> Iterator[Callable[[str], Phoenix]]:
    started: list[Phoenix] = []

    def rise(address: str) -> Phoenix:
        started.append(Phoenix(folder, address))
        return started[-1]

    yield rise
    for one in started:
        one.close()


@pytest.mark.fault("daemon SIGKILL")
@TRANSPORTS
def test_a_new_daemon_goes_on_at_the_cursor(risen, tmp_path, addressed: Addressed, transport: str):
    """Killed in the middle of an epoch, after its last batch, and before its first."""
    address = addressed(tmp_path)
    phoenix = risen(address)
    options = {"recipe": SMALL, "batch_size": 16, "transport": transport}
    with augd.connect(address, **options) as stream:
        undisturbed = follow(stream, 3)
        last = len(stream) - 1
    moments = [(0, 3), (0, last), (2, 0)]
    held: list[tuple[augd.Batch, np.ndarray]] = []

    def disturb(batch: augd.Batch) -> None:
        if (batch.epoch, batch.number) in moments:
            phoenix.die()
            held.append((batch, batch.images.copy()))

    with augd.connect(address, timeout_s=40, **options) as stream:
        assert follow(stream, 3, disturb) == undisturbed
        assert stream.stats()["lost"] == len(moments) == phoenix.num_deaths
    for batch, copy in held:
        assert np.array_equal(batch.images, copy), "what is held stays readable"


@pytest.mark.fault("daemon SIGTERM, Ctrl-C")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_drains_is_waited_for_too(risen, tmp_path, number):
    address = by_path(tmp_path)
    phoenix = risen(address)
    with augd.connect(address, recipe=SMALL, batch_size=16) as stream:
        undisturbed = follow(stream, 1)

    def disturb(batch: augd.Batch) -> None:
        if batch.number == 2:
            phoenix.die(number)

    with augd.connect(address, recipe=SMALL, batch_size=16, timeout_s=40) as stream:
        assert follow(stream, 1, disturb) == undisturbed
        assert stream.stats()["lost"] == 1


@pytest.mark.fault("daemon SIGKILL")
def test_sharers_go_on_too(risen, tmp_path):
    """Both read one production before the daemon is killed; afterwards, each from its cursor."""
    address = by_path(tmp_path)
    phoenix = risen(address)
    options = {"recipe": SMALL, "batch_size": 16}
    with augd.connect(address, **options) as stream:
        undisturbed = follow(stream, 2)
    found: dict[int, object] = {}
    met = threading.Barrier(2)

    def read(number: int) -> None:
        def disturb(batch: augd.Batch) -> None:
            if (batch.epoch, batch.number) == (0, 4) and met.wait(30) == 0:
                phoenix.die()

        with augd.connect(address, shared=2, timeout_s=40, **options) as stream:
            found[number] = follow(stream, 2, disturb)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == {0: undisturbed, 1: undisturbed}


def change(folder: Path) -> str:
    (folder / "class0" / "0000.jpg").unlink()
    return r"dataset: .* before, .* now"


@pytest.mark.fault("resume with another dataset, recipe or library")
def test_a_daemon_that_comes_back_with_other_data_is_refused(tmp_path):
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=40)
    address = by_path(tmp_path)
    process = start_by_hand(folder, address)
    with augd.connect(address, recipe=SMALL, batch_size=8, timeout_s=30) as stream:
        passing = stream.epoch(0)
        next(passing).release()
        kill(process)
        says = change(folder)
        process = start_by_hand(folder, address)
        with pytest.raises(augd.SpecMismatch, match=f"came back with other content: {says}"):
            for batch in passing:
                batch.release()
    kill(process)


OTHER_LIBRARY = """
import sys
if "augd.server.producer" in sys.orig_argv:
    from augd.pixels import library_versions
    describe = library_versions.describe_environment
    library_versions.describe_environment = lambda: {**describe(), "kernels": "another"}
"""


@pytest.mark.fault("resume with another dataset, recipe or library")
@pytest.mark.parametrize("what", ["dataset", "recipe", "library"])
def test_a_state_of_other_content_is_refused_by_name(tmp_path, monkeypatch, what):
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=20)
    options = {"recipe": SMALL, "batch_size": 8, "timeout_s": 30}
    with augd.serve(folder, producers=1) as served, augd.connect(served.address, **options) as one:
        state = one.state_dict()
    says = r"recipe\S*: .* when saved, .* here"
    if what == "dataset":
        change(folder)
        says = r"dataset: .* when saved, .* here"
    elif what == "recipe":
        options["recipe"] = {**SMALL, "ops": SMALL["ops"][:2]}
    else:
        (tmp_path / "sitecustomize.py").write_text(OTHER_LIBRARY)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
        says = r'environment.kernels: .* when saved, "another" here'
    with (
        augd.serve(folder, producers=1) as served,
        augd.connect(served.address, **options) as one,
        pytest.raises(augd.SpecMismatch, match=says),
    ):
        one.load_state_dict(state)


@pytest.mark.fault("daemon SIGKILL")
def test_a_daemon_killed_between_two_passes_is_waited_for(risen, tmp_path):
    address = by_path(tmp_path)
    phoenix = risen(address)
    with augd.connect(address, recipe=SMALL, batch_size=16, timeout_s=40) as stream:
        first = follow(stream, 1)
        phoenix.die()
        assert follow(stream, 1) == first


@pytest.mark.fault("daemon SIGTERM, Ctrl-C")
def test_interrupted_while_a_native_module_starts(folder, tmp_path, monkeypatch):
    """KeyboardInterrupt within a module's own start ends the interpreter by SIGSEGV, sometimes."""
    text = """
import os, signal, sys
from importlib.abc import MetaPathFinder
class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "zmq.backend.cython._zmq" and "serve" in sys.orig_argv:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
            print("not interrupted", file=sys.stderr, flush=True)
sys.meta_path.insert(0, Finder())
"""
    (tmp_path / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    process = begin_by_hand(folder, f"ipc://{tmp_path}/d")
    status, errors = finish(process)
    assert "not interrupted" in errors
    assert status == 130, errors


@pytest.mark.fault("daemon SIGTERM, Ctrl-C")
def test_no_child_inherits_a_blocked_signal(risen, tmp_path):
    phoenix = risen(by_path(tmp_path))
    for pid in [phoenix.process.pid, *family_of(phoenix.process.pid)]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        assert [int(line.split()[1], 16) for line in lines if line.startswith("SigBlk")] == [0]


STOPPED = """
import sys, augd
from tests.support.programs import follow
from tests.support.scenes import SMALL

def wait(batch):
    if batch.number == 0:
        print("here", flush=True)
        sys.stdin.readline()

with augd.connect(sys.argv[1], recipe=SMALL, batch_size=16, shared=2, max_lag=1) as stream:
    (found,) = follow(stream, 1, wait)
    print(*found)
"""
BEYOND_HEARTBEATS_S = 13.0


@pytest.mark.fault("trainer stopped (slow)")
@pytest.mark.slow
def test_a_sharer_stopped_longer_than_any_heartbeat_reads_what_it_held_and_goes_on(risen, tmp_path):
    """Its connection is given up meanwhile, though it still maps what the others fill."""
    address = by_path(tmp_path)
    risen(address)
    options = {"recipe": SMALL, "batch_size": 16}
    with augd.connect(address, **options) as stream:
        undisturbed = follow(stream, 5)
    trainer = subprocess.Popen(
        [sys.executable, "-c", STOPPED, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert trainer.stdin is not None
    assert trainer.stdout is not None
    with augd.connect(address, shared=2, max_lag=1, **options) as other:
        assert trainer.stdout.readline() == "here\n"
        trainer.send_signal(signal.SIGSTOP)
        assert follow(other, 3) == undisturbed[:3]
        time.sleep(BEYOND_HEARTBEATS_S)
        assert follow(other, 2, first=3) == undisturbed[3:]
        trainer.send_signal(signal.SIGCONT)
        said, _ = trainer.communicate("\n", timeout=40)
    assert trainer.returncode == 0
    digest, receipt = undisturbed[0]
    assert said == f"{digest} {receipt}\n"
