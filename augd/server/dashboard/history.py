"""Recent history: it compares snapshots, keeps the rates for the chart, and notifies watchers.

It requests a snapshot twice a second while a page is open, and every few seconds otherwise. So a
page that is opened later shows earlier rates. It keeps at most half an hour of points.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from augd.diagnostics.rates import compare
from augd.protocol.dashboard_messages import Snapshot
from augd.server.dashboard.daemon_link import DaemonGone, DaemonLink

_WATCHED_S = 0.5
_UNWATCHED_S = 5.0
_OVER_S = 3.0  # what a rate is an average of
_OVER_MIN_S = 0.25  # a batch within milliseconds is no rate
_POINTS = 720

Report = dict[str, Any]


class History:
    """Keeps the latest report. `run` it as a task.

    Attributes:
        num_watchers: open pages, and requests that wait for a report.
        report: the latest comparison of two snapshots; empty if there is none.
        why_ended: why there are no more reports.
    """

    def __init__(self, daemon_link: DaemonLink) -> None:
        self._daemon_link = daemon_link
        self._kept: deque[tuple[float, Snapshot]] = deque()
        self._points: deque[tuple[float, float]] = deque(maxlen=_POINTS)
        self._news = asyncio.Condition()
        self._is_wanted = asyncio.Event()
        self.num_watchers = 0
        self.report: Report = {}
        self.why_ended = "the dashboard ended"  # unless it was the daemon
        self._num_begun = 0  # snapshots that were requested
        self._seen_by = 0  # the number of the report's snapshot
        self._has_ended = False

    async def run(self) -> None:
        """Request snapshots until the daemon ends."""
        try:
            while True:
                self._is_wanted.clear()  # a request from here on waits for the next snapshot
                self._num_begun += 1
                await self._look()
                every_s = _WATCHED_S if self.num_watchers else _UNWATCHED_S
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._is_wanted.wait(), every_s)
        except DaemonGone as gone:
            self.why_ended = str(gone)
        finally:
            self.report, self._has_ended = {}, True
            async with self._news:
                self._news.notify_all()

    async def _look(self) -> None:
        snapshot = await asyncio.to_thread(self._daemon_link.snapshot)
        now = time.monotonic()
        self._kept.append((now, snapshot))
        while len(self._kept) > 2 and now - self._kept[1][0] >= _OVER_S:
            self._kept.popleft()
        before = self._kept[0]
        if now - before[0] >= _OVER_MIN_S:
            self.report = self._compare(before[1], snapshot, now - before[0])
            self._seen_by = self._num_begun
            self._points.append((time.time(), self.report["images_per_s"]))
            async with self._news:
                self._news.notify_all()

    async def fresh(self) -> Report:
        """Return a report of a snapshot that was requested after this call.

        Raises:
            DaemonGone: it ended.
        """
        before = self._num_begun
        self.num_watchers += 1
        self._is_wanted.set()
        try:
            await self._news_after(before)
        finally:
            self.num_watchers -= 1
        if self._has_ended:
            raise DaemonGone(self.why_ended)
        return {**self.report, "points": list(self._points)}

    async def reports(self) -> AsyncIterator[Report]:
        """Yield a report with all earlier points, then each new report, until the daemon ends.

        No report is older than the call: a daemon that hangs yields none.
        """
        seen_by, points_from = self._num_begun, 0
        self.num_watchers += 1
        self._is_wanted.set()
        try:
            while True:
                await self._news_after(seen_by)
                if self._has_ended:
                    return
                seen_by = self._seen_by
                yield {**self.report, "points": list(self._points)[points_from:]}
                points_from = -1
        finally:
            self.num_watchers -= 1

    async def _news_after(self, look: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._has_ended or self._seen_by > look)

    def _compare(self, before: Snapshot, after: Snapshot, seconds: float) -> Report:
        report = compare(before.snapshot, after.snapshot, seconds)
        datasets = {
            name: {**one, "quarantined": self._named(name, one["quarantined"])}
            for name, one in report["datasets"].items()
        }
        cpu_share = (after.cpu_s - before.cpu_s) / seconds
        more = {"uptime_s": after.uptime_s, "daemon_cpu_share": cpu_share}
        return {**report, **more, "datasets": datasets}

    def _named(self, dataset: str, samples: list[int]) -> list[tuple[int, str]]:
        arrays = self._daemon_link.datasets[dataset].arrays
        return [(sample, arrays.path(sample)) for sample in samples]
