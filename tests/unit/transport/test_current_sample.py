"""The current sample: it is named, across processes, and costs next to nothing."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from augd.transport.current_sample import CurrentSample, make_current_sample

_SET_NS_MAX = 3000  # ten times the aim: the machine of a test may be busy


@pytest.fixture
def pair() -> Iterator[tuple[CurrentSample, int]]:
    near, fd = make_current_sample()
    yield near, fd
    near.close()
    os.close(fd)


def test_a_new_page_names_nothing(pair: tuple[CurrentSample, int]) -> None:
    assert pair[0].read() is None


def test_both_sides_see_the_same_page(pair: tuple[CurrentSample, int]) -> None:
    near, fd = pair
    far = CurrentSample.inherited(os.dup(fd))
    far.set(2**62, 31, 0)
    assert near.read() == (2**62, 31, 0)
    far.clear()
    assert near.read() is None
    far.set(7, 0, 2**40)
    far.close()
    assert near.read() == (7, 0, 2**40), "it outlives its writer"


def test_the_page_can_be_neither_cut_nor_grown(pair: tuple[CurrentSample, int]) -> None:
    fd = pair[1]
    assert os.fstat(fd).st_size == mmap.PAGESIZE
    for size in (0, 2 * mmap.PAGESIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_what_a_process_had_in_hand_is_known_after_it_was_killed(
    pair: tuple[CurrentSample, int],
) -> None:
    near, fd = pair
    code = (
        "import os, signal\n"
        "from augd.transport.current_sample import CurrentSample\n"
        f"current = CurrentSample.inherited({fd})\n"
        "current.set(1, 2, 3); current.clear(); current.set(4, 5, 6)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], pass_fds=(fd,), timeout=30)
    assert done.returncode == -9
    assert near.read() == (4, 5, 6)


def test_a_private_page_works_alike() -> None:
    current_sample = CurrentSample.private()
    current_sample.clear()
    current_sample.set(1, 2, 3)
    assert current_sample.read() == (1, 2, 3)
    current_sample.close()


def test_setting_and_clearing_are_cheap(pair: tuple[CurrentSample, int]) -> None:
    current_sample = pair[0]
    best_ns = None
    for _ in range(5):
        before_ns = time.perf_counter_ns()
        for row in range(1000):
            current_sample.set(99, row, row)
            current_sample.clear()
        passed_ns = (time.perf_counter_ns() - before_ns) / 1000
        best_ns = min(best_ns or passed_ns, passed_ns)
    assert best_ns is not None
    assert best_ns < _SET_NS_MAX
