"""The kernel's count of processes that it killed for lack of memory."""

from __future__ import annotations

import time
from collections.abc import Iterable

_CONTROL_GROUPS = "/sys/fs/cgroup"


# Several producers may be killed at once, and are reaped one after another. An older count belongs
# to another process: a trainer in the same group.
_BELONGS_S = 1.0


class OomKillCounter:
    """The kernel's count of processes that it killed for lack of memory."""

    def __init__(self, paths: Iterable[str] | None = None) -> None:
        """Count from now on, in the first of these files that holds an `oom_kill` line.

        By default that of this process's control group, which its producers share; without one,
        that of the whole machine.
        """
        candidates = _counters() if paths is None else paths
        self._path = next((path for path in candidates if _read(path) is not None), None)
        self._seen = self._now()
        self._unclaimed = 0
        self._claimable_until = 0.0

    def claim(self) -> bool:
        """Return whether such a kill has no victim yet, and count the caller's process as it."""
        count, moment = self._now(), time.monotonic()
        if moment > self._claimable_until:
            self._unclaimed = 0
        if count > self._seen:
            self._unclaimed += count - self._seen
            self._seen, self._claimable_until = count, moment + _BELONGS_S
        if not self._unclaimed:
            return False
        self._unclaimed -= 1
        return True

    def _now(self) -> int:
        return 0 if self._path is None else _read(self._path) or 0


def _counters() -> list[str]:
    """List where the count may stand: in a group of version 2 or 1, or on the whole machine.

    A container sees its own group as the root of the mount, although it may read the host's path.
    """
    paths = []
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        for line in lines:
            _, kinds, path = line.rstrip("\n").split(":", 2)
            if not kinds:
                places = (path, "")
                paths += [f"{_CONTROL_GROUPS}{place}/memory.events" for place in places]
            elif "memory" in kinds.split(","):
                places = (f"/memory{path}", "/memory")
                paths += [f"{_CONTROL_GROUPS}{place}/memory.oom_control" for place in places]
    return [*paths, "/proc/vmstat"]


def _read(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as lines:
            return next(
                (int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None
            )
    except OSError:
        return None
