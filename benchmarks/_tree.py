"""A process and all that it started, as the kernel sees them: CPU time, own memory, cores.

Read from outside by the harness, and by a side about itself, so that every competitor's
workers, daemons and helpers are counted alike. The standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from augd.diagnostics.procfs import cpu_s, parent_pid
from augd.errors import AugdError


def tree(root: int) -> list[int]:
    """Return the pids of a process and of all its descendants that are there now."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                children.setdefault(parent_pid(int(entry.name)), []).append(int(entry.name))
            except AugdError:
                continue  # it ended while we looked
    found, ahead = [], [root]
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        ahead += children.get(pid, [])
    return found


def cpu_by_pid(root: int) -> dict[int, float]:
    """CPU seconds, user and kernel, of each process of the tree since its start."""
    seconds = {}
    for pid in tree(root):
        try:
            seconds[pid] = cpu_s(pid)
        except AugdError:
            continue
    return seconds


def cpu_between(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Sum what was added; a process that is new began at nothing, one that ended is lost."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def own_bytes(root: int) -> int:
    """Memory of the tree: anonymous and shared-memory pages, each page counted once.

    The proportional set size without files, so that neither libraries nor the page cache of the
    photos count. A page of shared memory that no process has mapped at the moment (a batch on
    its way between two processes of a DataLoader) is not seen.
    """
    return sum(map(_own_bytes, tree(root)))


def _own_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it ended while we looked, and owns nothing any more
    wanted = ("Pss_Anon:", "Pss_Shmem:")
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(wanted))


def cores(root: int) -> set[int]:
    """Return the cores that the threads of the tree may run on."""
    allowed: set[int] = set()
    for pid in tree(root):
        try:
            threads = [int(entry.name) for entry in os.scandir(f"/proc/{pid}/task")]
            for thread in threads:
                allowed |= os.sched_getaffinity(thread)
        except OSError:
            continue
    return allowed
