"""The comparison itself: start every side, look at what it makes, run the rounds.

All sides are alive at once and idle but for one; the order is ABC CBA ABC ..., on the same cores. A
side that cannot be started, makes something else than the others or fails on the way is left out,
with the reason. What it gave until then is thrown away, since ratios need pairs.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from benchmarks import _tree
from benchmarks._law import SIDE_PX
from benchmarks._rounds import Competitor, Score, settle
from benchmarks.peers.catalogue import Side
from benchmarks.peers.figures import Measured
from benchmarks.peers.install import install, python_of, telling_line
from benchmarks.sides.peers._loop import photo_paths

_READY_S = 300.0  # FFCV compiles its pipeline before the first batch
_IDLE_AFTER_S = 120.0
_LOOK_EVERY_S = 0.05
_LOOKED_AT = 256
# Standard errors that the mean of a batch may be away from that of the photos. With 256 crops of
# natural photos that is 12 grey levels; their R and B are 20 apart, so BGR is seen as well.
_MEANS_WITHIN = 6.0
_ROWS_DIFFER = 5.0


class Unfit(Exception):
    """A side cannot be compared; the message says why."""


@dataclass(frozen=True, slots=True)
class Course:
    """How the sides are run."""

    photos: Path
    rounds: int
    seconds: float
    workers: int
    batch_size: int
    cores: Sequence[int]
    tell: Callable[[str], None] = field(default=lambda line: None)


@dataclass(slots=True)
class _Runner:
    """A side that is alive, and what it gave so far."""

    side: Side
    competitor: Competitor
    log: IO[bytes]
    scores: list[Score] = field(default_factory=list)
    memory_bytes: int = 0


def compare(sides: Sequence[Side], course: Course) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure all sides; returns what was measured, and why others were not, both by name."""
    reasons = install(side.environment for side in sides if side.environment)
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="augd-peers-")))
        means = channel_means(photo_paths(str(course.photos)))  # and the photos are in memory now
        runners: dict[str, _Runner] = {}
        for side in sides:
            log = stack.enter_context((folder / f"{side.name}.log").open("w+b"))
            with _leaving_out(side.name, left_out, log):
                if side.environment in reasons:
                    raise Unfit(reasons[side.environment])
                course.tell(f"starting {side.name}")
                competitor = stack.enter_context(_start(side, course, folder, log))
                runners[side.name] = _Runner(side, competitor, log)
                _check(side, competitor, course, means)
            if side.name in left_out and side.name in runners:
                runners.pop(side.name).competitor.close()
        _run_rounds(runners, left_out, course)
        return {name: _sum_up(runner) for name, runner in runners.items()}, left_out


def _start(side: Side, course: Course, folder: Path, log: IO[bytes]) -> Competitor:
    arguments: dict[str, Any] = {
        "photos": str(course.photos),
        "batch_size": course.batch_size,
        "workers": course.workers,
        **side.options,
    }
    if side.ffcv_form:
        arguments["file"] = str(write_ffcv(side, course.photos, folder))
    return Competitor(
        side.name,
        f"peers.{side.module}",
        arguments=arguments,
        python=python_of(side.environment),
        log=log,
        ready_s=_READY_S,
    )


def _check(side: Side, competitor: Competitor, course: Course, means: Sequence[float]) -> None:
    """Refuse a side that makes something else, leaves the cores, or is never idle."""
    if side.images:
        judge(competitor.ready["looks"], course.batch_size, means)
    strays = _tree.cores(competitor.pid) - set(course.cores)
    if strays:
        raise Unfit(f"it left the cores {list(course.cores)} for {sorted(strays)}")
    try:  # or what it makes ahead would delay the next side's first batch
        settle(_tree.tree(competitor.pid), _IDLE_AFTER_S)
    except TimeoutError:
        raise Unfit(
            f"it still uses the cores after {_IDLE_AFTER_S:g} s in which nobody asked for a batch: "
            "the others would have to share them"
        ) from None


def write_ffcv(side: Side, photos: Path, folder: Path) -> Path:
    """Write the photos into FFCV's own file, in the form that the side reads.

    Raises:
        Unfit: it cannot be written.
    """
    out = folder / f"{side.ffcv_form}.ffcv"
    arguments = json.dumps({"photos": str(photos), "form": side.ffcv_form, "out": str(out)})
    done = subprocess.run(
        [python_of(side.environment), "-m", "benchmarks.sides.peers.ffcv_write", arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not out.is_file():
        raise Unfit(f"its file could not be written: {telling_line(done.stderr)}")
    return out


def _run_rounds(runners: dict[str, _Runner], left_out: dict[str, str], course: Course) -> None:
    """Run a round for nothing, the rounds that count, and one in which memory is looked at."""

    def each(number: int, run: Callable[[_Runner], object]) -> None:
        order = list(runners.values())
        for runner in order if number % 2 == 0 else reversed(order):
            name = runner.side.name
            with _leaving_out(name, left_out, runner.log):
                run(runner)
            if name in left_out:
                runners.pop(name).competitor.close()

    course.tell("warming up")
    each(0, lambda runner: runner.competitor.run(course.seconds))
    for number in range(course.rounds):
        course.tell(f"round {number + 1} of {course.rounds}")
        each(number, lambda runner: runner.scores.append(runner.competitor.run(course.seconds)))
    course.tell("looking at memory")
    each(course.rounds, lambda runner: _look_at_memory(runner, course.seconds))


def _look_at_memory(runner: _Runner, seconds: float) -> None:
    """Follow what the tree owns through a round that doesn't count: looking takes time."""
    runner.competitor.begin(seconds)
    while not runner.competitor.has_answered(_LOOK_EVERY_S):
        runner.memory_bytes = max(runner.memory_bytes, _tree.own_bytes(runner.competitor.pid))
    runner.competitor.end(seconds)


@contextmanager
def _leaving_out(name: str, left_out: dict[str, str], log: IO[bytes]) -> Iterator[None]:
    """Note why a side cannot be compared when what is done with it fails."""
    try:
        yield
    except Unfit as error:
        left_out[name] = str(error)
    except (RuntimeError, TimeoutError, BrokenPipeError) as error:
        left_out[name] = f"{_what(error)}: {_last_words(log)}"
    except ValueError:
        left_out[name] = "its library prints where only answers belong (standard output)"
    if name in left_out:
        print(f"benchmarks.peers: left out {name}: {left_out[name]}", file=sys.stderr, flush=True)


def _what(error: Exception) -> str:
    return "it did not answer in time" if isinstance(error, TimeoutError) else "it ended"


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    return telling_line(log.read().decode(errors="replace"))


def _sum_up(runner: _Runner) -> Measured:
    ready = runner.competitor.ready
    return Measured(
        resize=runner.side.resize,
        files=runner.side.files,
        versions=ready["versions"],
        images_per_s=[score.images_per_s for score in runner.scores],
        cpu_s_per_1000=[score.cpu_s_per_1000 for score in runner.scores],
        waits_s=[wait for score in runner.scores for wait in score.extras["waits_s"]],
        memory_bytes=runner.memory_bytes,
        first_batch_s=ready["first_batch_at"] - runner.competitor.started_s,
        has_images=runner.side.images,
    )


def channel_means(paths: Sequence[str]) -> list[float]:
    """Read every photo once, so that it is in the page cache; return the mean R, G, B of some."""
    every = max(1, len(paths) // _LOOKED_AT)
    found = []
    for number, path in enumerate(paths):
        content = Path(path).read_bytes()
        if number % every == 0:
            found.append(_mean_of(content))
    if not found:
        raise SystemExit("--photos: expected a folder with .jpg or .jpeg files below, found none")
    return [sum(channel) / len(found) for channel in zip(*found, strict=True)]


def _mean_of(content: bytes) -> tuple[float, float, float]:
    small: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_COLOR_8)
    if small is None:
        raise SystemExit("--photos: one of the files is no JPEG; `augd check` names it")
    blue, green, red, _ = cv2.mean(small)
    return red, green, blue


def judge(looks: Mapping[str, Any], batch_size: int, means: Sequence[float]) -> None:
    """Refuse a side whose first batch is not what all others make.

    Raises:
        Unfit: shape, dtype, the channels' means, or rows that are all alike.
    """
    shapes = [[batch_size, SIDE_PX, SIDE_PX, 3], [batch_size, 3, SIDE_PX, SIDE_PX]]
    if looks["shape"] not in shapes or looks["dtype"] != "uint8":
        raise Unfit(f"expected uint8 {shapes[0]}, got {looks['dtype']} {looks['shape']}")
    if batch_size == 1:
        return  # one image may look like anything
    found, differ = looks["channel_means"], looks["row_means_std"]
    if differ < _ROWS_DIFFER:
        raise Unfit(
            f"rows' means differ by {differ:.1f}, expected {_ROWS_DIFFER:g} or "
            "more: it seems to deliver one image over and over"
        )
    within = _MEANS_WITHIN * differ / math.sqrt(batch_size)
    if any(abs(mine - mean) > within for mine, mean in zip(found, means, strict=True)):
        expected = ", ".join(f"{mean:.0f}" for mean in means)
        got = ", ".join(f"{mean:.0f}" for mean in found)
        raise Unfit(f"mean R, G, B: expected {expected} within {within:.0f}, got {got}")
