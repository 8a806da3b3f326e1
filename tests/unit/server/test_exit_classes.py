"""How producers end: the classes by arithmetic, then with processes that end in each way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from augd.process.exit_status import describe_status, is_stopped
from augd.process.oom_kills import OomKillCounter
from augd.protocol.exit_reason import ExitReason
from augd.server.supervision.classify_exit import classify

FAULTS = ("SEGV", "BUS", "ABRT", "ILL", "FPE", "SYS", "TRAP", "XCPU", "XFSZ")
FROM_OUTSIDE = ("TERM", "HUP", "INT", "QUIT", "USR1", "PIPE")


def find(
    status: int, *, is_ours: bool = False, was_stopped: bool = False, is_for_memory: bool = False
) -> ExitReason:
    return classify(status, is_ours=is_ours, was_stopped=was_stopped, is_for_memory=is_for_memory)


def end(code: str) -> int:
    """Run a process to its end; returns its status."""
    before = "import os, resource, signal\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    return subprocess.run([sys.executable, "-c", before + code], timeout=30).returncode


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_the_process_own(name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    for is_for_memory in (False, True):
        assert find(-number, is_for_memory=is_for_memory) is ExitReason.SIGNAL
    assert ExitReason.SIGNAL.is_suspect


@pytest.mark.parametrize("name", FROM_OUTSIDE)
def test_other_signals_are_somebody_elses(name: str) -> None:
    assert find(-signal.Signals[f"SIG{name}"]) is ExitReason.OUTSIDE
    assert find(-signal.Signals[f"SIG{name}"], is_ours=True) is ExitReason.OUTSIDE
    assert find(-64) is ExitReason.OUTSIDE, "a real-time signal has no name"
    assert not ExitReason.OUTSIDE.is_suspect


def test_sigkill_has_four_reasons() -> None:
    kill = -signal.SIGKILL
    assert find(kill) is ExitReason.OUTSIDE
    assert find(kill, is_for_memory=True) is ExitReason.MEMORY
    assert find(kill, is_ours=True) is ExitReason.KILLED
    assert find(kill, is_ours=True, was_stopped=True) is ExitReason.STOPPED
    assert find(kill, was_stopped=True) is ExitReason.OUTSIDE, (
        "stopped, and killed by somebody else"
    )


def test_which_ends_make_a_sample_suspect() -> None:
    suspect = [kind for kind in ExitReason if kind.is_suspect]
    assert suspect == [ExitReason.SIGNAL, ExitReason.MEMORY, ExitReason.KILLED]


def test_a_status_is_a_status_whoever_else_wanted_to_kill_it() -> None:
    assert find(0, is_ours=True) is ExitReason.DRAINED
    assert find(1, is_ours=True, was_stopped=True) is ExitReason.ERROR


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-11, "SIGSEGV"), (-63, "signal 63")],
)
def test_ends_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("pass", ExitReason.DRAINED),
        ("raise ValueError", ExitReason.ERROR),
        ("os._exit(3)", ExitReason.ERROR),
        ("import ctypes; ctypes.string_at(0)", ExitReason.SIGNAL),
        ("os.abort()", ExitReason.SIGNAL),
        ("os.kill(os.getpid(), signal.SIGSYS)", ExitReason.SIGNAL),
        ("os.kill(os.getpid(), signal.SIGBUS)", ExitReason.SIGNAL),
        ("os.kill(os.getpid(), signal.SIGKILL)", ExitReason.OUTSIDE),
        ("os.kill(os.getpid(), signal.SIGTERM)", ExitReason.OUTSIDE),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_processes_that_end_themselves(code: str, kind: ExitReason) -> None:
    assert find(end(code + "\n")) is kind


def test_a_stopped_process_is_seen_to_be_so(sleeper: subprocess.Popen[bytes]) -> None:
    assert not is_stopped(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGSTOP)
    os.waitpid(sleeper.pid, os.WUNTRACED)
    assert is_stopped(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert not is_stopped(sleeper.pid), "it is gone"


# the kernel's count


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    path = tmp_path / "memory.events"
    path.write_text("low 0\noom 7\noom_kill 3\noom_group_kill 0\n")
    return path


def grow(counter: Path, count: int) -> None:
    counter.write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n")


def test_a_count_that_stands_claims_nothing(counter: Path) -> None:
    assert not OomKillCounter([str(counter)]).claim()


def test_each_kill_is_claimed_by_one(counter: Path) -> None:
    kills = OomKillCounter([str(counter)])
    grow(counter, 5)
    assert [kills.claim() for _ in range(4)] == [True, True, False, False]
    grow(counter, 6)
    assert [kills.claim() for _ in range(2)] == [True, False]


def test_a_kill_that_nobody_claimed_is_forgotten(
    counter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = OomKillCounter([str(counter)])
    grow(counter, 5)
    assert kills.claim()
    later = time.monotonic() + 2.0
    monkeypatch.setattr("augd.process.oom_kills.time.monotonic", lambda: later)
    assert not kills.claim()


def test_the_first_file_that_counts_is_read(counter: Path, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("oom_kill_disable 0\nunder_oom 0\n")
    kills = OomKillCounter([str(tmp_path / "none"), str(tmp_path / "old"), str(counter)])
    grow(counter, 4)
    assert kills.claim()


def test_without_any_count_nothing_is_claimed_and_a_file_that_goes_claims_nothing(
    counter: Path,
) -> None:
    assert not OomKillCounter([]).claim()
    kills = OomKillCounter([str(counter)])
    counter.unlink()
    assert not kills.claim()


def test_this_machine_counts_somewhere() -> None:
    kills = OomKillCounter()
    assert kills._path is not None
    assert not kills.claim()


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 24 MB, where this machine lets us make one."""
    name = f"augd-test-{os.getpid()}"
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    is_first = (first / "memory.limit_in_bytes").exists()
    group = (first if is_first else second) / name
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error.strerror}")
    try:
        limit = group / ("memory.limit_in_bytes" if is_first else "memory.max")
        try:
            limit.write_text(str(24 << 20))
        except OSError as error:
            pytest.skip(f"no control group can be limited: {error.strerror}")
        yield group
    finally:
        deadline = time.monotonic() + 5.0
        while group.exists() and time.monotonic() < deadline:
            try:
                group.rmdir()
            except OSError:
                time.sleep(0.01)  # the kernel still takes its last process out


def test_a_process_that_the_kernel_killed_for_memory(small_group: Path) -> None:
    kills = OomKillCounter(
        str(small_group / name) for name in ("memory.events", "memory.oom_control")
    )
    status = end(
        f"open({str(small_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        "held = [bytearray(os.urandom(1 << 20)) for _ in range(100)]\n"
    )
    assert status == -signal.SIGKILL
    is_for_memory = kills.claim()
    assert find(status, is_for_memory=is_for_memory) is ExitReason.MEMORY
    assert not kills.claim()
