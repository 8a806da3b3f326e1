"""What the page's watchers are told: of now, and never of a moment too short for a pace."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra http is not installed")

from augd.protocol.dashboard_messages import Snapshot
from augd.server.dashboard import history
from augd.server.dashboard.daemon_link import DaemonGone

GONE = "the daemon has not answered for 10 s"
LONG_S = 10.0


class Daemon:
    """Answers as often as it is let, then stands still; in the end it is given up."""

    datasets: dict[str, Any]

    def __init__(self, num_answers: int) -> None:
        self.may_answer: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(num_answers):
            self.may_answer.put(True)
        self.num_asked = 0

    def snapshot(self) -> Snapshot:
        self.num_asked += 1
        if not self.may_answer.get(timeout=LONG_S):
            raise DaemonGone(GONE)
        return Snapshot({}, 0.0, 0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_WATCHED_S", 0.001)
    monkeypatch.setattr(history, "_UNWATCHED_S", 0.001)
    monkeypatch.setattr(history, "_OVER_MIN_S", 1e-9)
    monkeypatch.setattr(
        history, "compare", lambda before, after, seconds: {"images_per_s": 1.0, "datasets": {}}
    )


async def first_of(reports: AsyncIterator[history.Report], within_s: float) -> history.Report:
    return await asyncio.wait_for(anext(reports), within_s)


def test_who_comes_while_the_daemon_stands_still_is_told_nothing_old() -> None:
    async def look() -> None:
        daemon = Daemon(3)
        watching = history.History(daemon)  # type: ignore[arg-type]
        running = asyncio.create_task(watching.run())
        assert (await first_of(watching.reports(), LONG_S))["images_per_s"] == 1.0
        while daemon.num_asked < 4:  # all that it answers was told
            await asyncio.sleep(0.001)
        assert watching.report
        with pytest.raises(TimeoutError):
            await first_of(watching.reports(), 0.2)
        daemon.may_answer.put(False)
        await asyncio.wait_for(running, LONG_S)
        with pytest.raises(StopAsyncIteration):
            await first_of(watching.reports(), LONG_S)
        assert watching.why_ended == GONE

    asyncio.run(look())


def test_a_batch_within_a_moment_is_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first who watches has the daemon asked again at once: two answers of one moment."""

    async def look() -> float:
        watching = history.History(daemon)  # type: ignore[arg-type]
        running = asyncio.create_task(watching.run())
        await first_of(watching.reports(), LONG_S)
        running.cancel()
        return spans[0]

    monkeypatch.setattr(history, "_OVER_MIN_S", 0.05)
    spans: list[float] = []

    def compare(before: Any, after: Any, seconds: float) -> dict[str, Any]:
        spans.append(seconds)
        return {"images_per_s": 1.0, "datasets": {}}

    monkeypatch.setattr(history, "compare", compare)
    daemon = Daemon(1000)
    assert asyncio.run(look()) >= 0.05
