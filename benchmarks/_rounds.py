"""Rounds: competitors in processes of their own, measured in turns on the same cores.

The harness of every benchmark. A competitor is one program of `benchmarks.sides`, or several
processes of it that start together. It is started once, then told to run for some seconds, and
idles until it is told again. It may run in another Python environment than the checkout's. Only one
runs at a time, in the order ABBA ABBA ..., so that a machine that grows slower does it to all.
Every wait is bounded; nothing outlives the harness.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, Any

from augd.diagnostics.procfs import cpu_s
from augd.errors import AugdError
from benchmarks._tree import tree

_READY_S = 120.0
_ANSWER_S = 240.0  # beyond the round itself: warm-up, and what was prefetched running out
_END_S = 15.0
_IDLE_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Spread:
    """What the rounds gave: the median, and the range."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Summarise the rounds of one figure."""
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found))


@dataclass(frozen=True, slots=True)
class Score:
    """One round of one competitor. `extras` are the side's own figures, of its first process."""

    images_per_s: float
    cpu_s_per_1000: float
    extras: Mapping[str, Any]


class Competitor:
    """The processes of one side. Use it in `with`.

    Attributes:
        name: for the table.
        ready: what the side's first process had to say when it was ready.
        started_s: of the monotonic clock, just before its processes were started.
    """

    def __init__(
        self,
        name: str,
        side: str,
        *,
        arguments: Mapping[str, Any],
        processes: int = 1,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        log: IO[bytes] | None = None,
        ready_s: float = _READY_S,
    ) -> None:
        """Start the processes of `benchmarks.sides.<side>` and wait until they are ready.

        Args:
            name: for the table.
            side: the module.
            arguments: passed as one JSON object; `process` is added, the process's number.
            processes: how many of them work at the same time.
            environment: variables to add.
            python: the interpreter, and so the environment, that the side runs in.
            log: where its standard error goes; the terminal by default.
            ready_s: the longest that it may take until it is ready.
        """
        self.name = name
        self.started_s = time.monotonic()
        self._processes = [
            subprocess.Popen(
                [
                    *(python, "-m", f"benchmarks.sides.{side}"),
                    json.dumps({**arguments, "process": number}),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(environment or {})},
                # As augd's producers are: a session is what the kernel shares cores out by.
                start_new_session=True,
            )
            for number in range(processes)
        ]
        try:
            answers = [_answer(process, ready_s) for process in self._processes]
            self.ready = answers[0]
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Pid of the side's first process."""
        return self._processes[0].pid

    def run(self, seconds: float) -> Score:
        """Let it run for some seconds, and wait until it is idle again."""
        self.begin(seconds)
        return self.end(seconds)

    def begin(self, seconds: float) -> None:
        """Let it run for some seconds; `end` must follow."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n".encode())
            process.stdin.flush()

    def has_answered(self, timeout_s: float) -> bool:
        """Wait so long for the first process's answer, or its end; say whether it is there."""
        output = self._processes[0].stdout
        assert output is not None
        return bool(select.select([output], [], [], timeout_s)[0])

    def end(self, seconds: float) -> Score:
        """Wait until it has run, and is idle again."""
        answers = [_answer(process, seconds + _ANSWER_S) for process in self._processes]
        images = sum(answer["images"] for answer in answers)
        return Score(
            images_per_s=sum(answer["images"] / answer["seconds"] for answer in answers),
            cpu_s_per_1000=1000 * sum(answer["cpu_s"] for answer in answers) / images,
            extras=answers[0],
        )

    def close(self) -> None:
        """End the processes: they leave when their input ends, or are killed."""
        for process in self._processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it ended by itself, and what it was told is lost
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                for pid in tree(process.pid):  # workers of some loaders would outlive it
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def __enter__(self) -> Competitor:
        """Return the competitor itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _answer(process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, Any]:
    """Read one line, under a deadline."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], timeout_s)[0]:
        raise TimeoutError(f"{process.args!r} said nothing for {timeout_s:g} s")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended; its output above says why")
    answer: dict[str, Any] = json.loads(line)
    return answer


def alternate(
    starts: Sequence[Callable[[], Competitor]], *, rounds: int, seconds: float
) -> dict[str, list[Score]]:
    """Run the competitors in turns; returns their scores by name, one per round.

    A first round of each is thrown away: it warms the page cache and everything else.
    """
    with ExitStack() as stack:
        competitors = [stack.enter_context(start()) for start in starts]
        for competitor in competitors:
            competitor.run(min(seconds, 2.0))
        scores: dict[str, list[Score]] = {competitor.name: [] for competitor in competitors}
        for number in range(rounds):
            for competitor in competitors if number % 2 == 0 else reversed(competitors):
                scores[competitor.name].append(competitor.run(seconds))
    return scores


def ratios(one: Sequence[Score], other: Sequence[Score]) -> Spread:
    """Compare images/s round by round: neighbours in time saw the same machine."""
    return spread(a.images_per_s / b.images_per_s for a, b in zip(one, other, strict=True))


def cost_ratios(one: Sequence[Score], other: Sequence[Score]) -> Spread:
    """Compare CPU-seconds per image round by round; steadier than speed on a busy machine."""
    return spread(a.cpu_s_per_1000 / b.cpu_s_per_1000 for a, b in zip(one, other, strict=True))


# the other end: what a side does


def answer_rounds(
    run_round: Callable[[float], Mapping[str, Any]], ready: Mapping[str, Any] | None = None
) -> None:
    """Serve a `Competitor`: run rounds as they are asked for, until the input ends.

    `run_round(seconds)` returns at least images, seconds and cpu_s. `ready` is said once, before.
    """
    _say(ready or {})
    for line in sys.stdin:
        _say(run_round(float(line)))


def run_chunks(make: Callable[[], int], seconds: float) -> dict[str, float]:
    """Have a side that is one process make chunk after chunk; `make` returns its images."""
    started, before_s = time.monotonic(), time.process_time()
    images = 0
    while (passed_s := time.monotonic() - started) < seconds:
        images += make()
    return {"images": images, "seconds": passed_s, "cpu_s": time.process_time() - before_s}


def _say(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def settle(pids: Sequence[int], timeout_s: float = 30.0) -> None:
    """Wait until these processes use no CPU: what they prefetch must not fall into others' time."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.1
    before = _total_cpu_s(pids)
    while time.monotonic() < deadline:
        time.sleep(pause_s)
        after = _total_cpu_s(pids)
        if after - before < _IDLE_SHARE * pause_s:
            return
        before = after
    raise TimeoutError(f"processes {list(pids)} are still at work after {timeout_s:g} s")


def _total_cpu_s(pids: Sequence[int]) -> float:
    total_s = 0.0
    for pid in pids:
        with suppress(AugdError):  # it ended, and needs none any more
            total_s += cpu_s(pid)
    return total_s
