"""Finds what this process may use of the machine: cores and memory.

The number of producers and the size of an arena depend on it. A container is limited by control
groups, which the machine's own figures don't show: quotas of CPU time, limits of memory. Each group
between this process's own and the root limits it, so the smallest value along the path counts.
Versions 1 and 2 are read, each where it is mounted.

Invariants: reads files and changes nothing; a file that cannot be read limits nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Kind = Literal["cpu", "memory"]

_MOUNTED_AT = "sys/fs/cgroup"
# Where version 1 mounts a controller by convention, and version 2 itself beside it.
_FIRST = {"cpu": ("cpu", "cpu,cpuacct", "cpuacct,cpu"), "memory": ("memory",)}
_SECOND = (".", "unified")
PER_CORE_MAX = 4  # producers, unless forced: so many overlap their waits for slow files
# Version 1 writes "no limit" as the largest number of whole pages in 63 bits.
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class _Mount:
    """A hierarchy of groups: the folder at which it lies, and which group that folder is."""

    version: Literal[1, 2]
    folder: Path
    group: str


def num_cores() -> int:
    """Count the cores whose time this process gets: those it may run on, or its quota if less.

    A quota of part of a core counts as a whole one: without a producer that part would stay idle.
    """
    quota = cpu_quota()
    allowed = len(os.sched_getaffinity(0))
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def why_too_many(num_producers: int) -> str:
    """Return why so many producers are too many for this host; None for up to four per core."""
    cores = num_cores()
    if num_producers <= PER_CORE_MAX * cores:
        return ""
    return (
        f"expected at most {PER_CORE_MAX * cores}, four for each of the {cores} cores that there "
        f"are to use, got {num_producers}: more only wait for each other, unless files are slow"
    )


def cpu_quota(root: str | Path = "/") -> float | None:
    """Return how many cores' worth of time control groups allow; None without a quota."""
    return _least(Path(root), "cpu", {1: _quota_of_first, 2: _quota_of_second})


def memory_left(root: str | Path = "/") -> int | None:
    """Return how many bytes control groups still allow; None without a limit."""
    left = _least(Path(root), "memory", {1: _left_of_first, 2: _left_of_second})
    return None if left is None else max(0, int(left))


def describe_cores() -> str:
    """Describe how many cores are usable, and why they are fewer than the machine's."""
    allowed, quota = len(os.sched_getaffinity(0)), cpu_quota()
    text = f"{num_cores()} of {os.cpu_count()} cores"
    if quota is None or quota >= allowed:
        return text
    return f"{text}: a control group's quota is {quota:g} cores' time"


def _least(
    root: Path, kind: Kind, readers: dict[int, Callable[[Path], float | None]]
) -> float | None:
    found = [
        limit
        for version, level in _levels(root, kind)
        if (limit := readers[version](level)) is not None
    ]
    return min(found, default=None)


def _levels(root: Path, kind: Kind) -> Iterator[tuple[int, Path]]:
    """Yield the folders of this process's groups, up to the root of each hierarchy."""
    groups = _own_groups(root, kind)
    seen: set[tuple[int, Path]] = set()
    for mount in _mounts(root, kind):
        for version, group in groups:
            if version != mount.version:
                continue
            level = mount.folder.joinpath(*_below(group, mount.group))
            for one in (level, *level.parents):
                if (version, one) not in seen and one.is_relative_to(mount.folder):
                    seen.add((version, one))
                    yield version, one


def _below(group: str, mounted: str) -> list[str]:
    """Return the parts of a group's path that lie below the group which a folder shows.

    A container sees its group as the root of the mount, although it may read the host's path. A
    group outside its own view begins with `/..`: only that root is visible.
    """
    parts = [part for part in group.split("/") if part not in ("", ".")]
    top = [part for part in mounted.split("/") if part not in ("", ".")]
    if ".." in parts:
        return []
    return parts[len(top) :] if parts[: len(top)] == top else parts


def _own_groups(root: Path, kind: Kind) -> list[tuple[int, str]]:
    """Return the groups that this process is in: (version, path)."""
    groups: list[tuple[int, str]] = []
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if separator and not controllers:
            groups.append((2, path))
        elif kind in controllers.split(","):
            groups.append((1, path))
    # Files that no path leads to: the roots are read all the same.
    return groups + [(version, "/") for version in (1, 2)]


@cache  # mounts stay, and a host of many containers lists thousands
def _mounts(root: Path, kind: Kind) -> tuple[_Mount, ...]:
    """List the mount points of groups: the kernel's list, and those by convention."""
    found = list(_told_mounts(root, kind))
    top = root / _MOUNTED_AT
    found += [_Mount(1, top / name, "/") for name in _FIRST[kind]]
    return (*found, *(_Mount(2, top / name, "/") for name in _SECOND))


def _told_mounts(root: Path, kind: Kind) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        # ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELDS...] - TYPE SOURCE SUPER-OPTIONS
        # Source: proc_pid_mountinfo(5).
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        folder = root / fields[4].lstrip("/").replace("\\040", " ")
        if kinds[0] == "cgroup2":
            yield _Mount(2, folder, fields[3])
        elif kinds[0] == "cgroup" and kind in kinds[2].split(","):
            yield _Mount(1, folder, fields[3])


def _quota_of_second(level: Path) -> float | None:
    words = _first_line(level / "cpu.max").split()
    if not words or words[0] == "max":
        return None
    quota, period = _number(words[0]), _number(words[1]) if len(words) > 1 else 100_000
    return quota / period if quota is not None and period else None


def _quota_of_first(level: Path) -> float | None:
    quota = _number(_first_line(level / "cpu.cfs_quota_us"))
    period = _number(_first_line(level / "cpu.cfs_period_us"))
    return quota / period if quota is not None and period and quota > 0 else None


def _left_of_second(level: Path) -> int | None:
    limit = _number(_first_line(level / "memory.max"))
    current = _number(_first_line(level / "memory.current"))
    if limit is None or current is None:  # "max"; the root group has no such files
        return None
    return max(0, limit - current + _stat_value(level / "memory.stat", "inactive_file"))


def _left_of_first(level: Path) -> int | None:
    limit = _number(_first_line(level / "memory.limit_in_bytes"))
    current = _number(_first_line(level / "memory.usage_in_bytes"))
    if limit is None or current is None or not 0 <= limit < _NO_LIMIT:
        return None
    # Without `total_` the figure leaves out the groups below, whose memory `usage` counts.
    return max(0, limit - current + _stat_value(level / "memory.stat", "total_inactive_file"))


def _stat_value(path: Path, key: str) -> int:
    for line in _lines(path):
        name, _, value = line.partition(" ")
        if name == key:
            return _number(value) or 0
    return 0


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
