"""What every side of the comparison does: take batches as fast as they come, and time it.

A batch is asked for, waited for, let go. What a loader made ahead while others had their turn is
taken and thrown away before the clock starts: as many batches as its side says, and then until one
has to be waited for. The clock starts and stops at the arrival of a batch, so that as much is in
the making at the end as at the beginning. CPU time is that of the whole tree of processes, and a
round is over when that uses no more. The standard library and NumPy only.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._rounds import answer_rounds, settle
from benchmarks._tree import cpu_between, cpu_by_pid, tree

Rows = NDArray[Any]

# A batch that took less than this per row lay ready: nobody makes 20,000 rows a second here, and
# to hand over what is ready takes a copy at most.
_MADE_S = 5e-5
_READY_MAX = 256  # batches; a loader that still has some is faster than we can take them
_IDLE_AFTER_S = 120.0
_SUFFIXES = (".jpg", ".jpeg")


def photo_paths(folder: str) -> list[str]:
    """Name the JPEG files below a folder, in one order for every side."""
    files = sorted(Path(folder).rglob("*"))
    return [str(path) for path in files if path.suffix.lower() in _SUFFIXES]


def forever(paths: list[str]) -> Iterator[str]:
    """Yield the files of one shuffled epoch after another."""
    shuffled = list(paths)
    while True:
        random.shuffle(shuffled)
        yield from shuffled


def serve_batches(
    batches: Iterator[Any],
    images_of: Callable[[Any], Rows],
    *,
    ahead: int,
    versions: Callable[[], Mapping[str, str]],
    release: Callable[[Any], None] = lambda batch: None,
) -> None:
    """Serve rounds from batches that never end.

    Args:
        batches: the loader's own iterator.
        images_of: the pixels of a batch as an array, for counting and for looking once.
        ahead: the batches that lie ready when nobody took any for a while, more or less.
        versions: tells those of the libraries that decide speed; asked after the first batch.
        release: lets a batch go, where that is not what forgetting it does.
    """
    first = next(batches)
    arrived_s = time.monotonic()
    looks = describe(images_of(first))
    release(first)
    del first

    def take() -> int:
        batch = next(batches)
        rows = len(images_of(batch))
        release(batch)
        return rows

    def drain() -> None:
        for number in range(_READY_MAX):
            asked = time.monotonic()
            rows = take()
            if number >= ahead and time.monotonic() - asked > _MADE_S * rows:
                return

    def run_round(seconds: float) -> dict[str, Any]:
        drain()
        before = cpu_by_pid(os.getpid())
        images, waits_s = 0, []
        started = asked = time.monotonic()
        while asked - started < seconds:
            images += take()
            now = time.monotonic()
            waits_s.append(now - asked)
            asked = now
        used_s = cpu_between(before, cpu_by_pid(os.getpid()))
        settle(tree(os.getpid()), _IDLE_AFTER_S)
        return {
            "images": images,
            "seconds": asked - started,
            "cpu_s": used_s,
            "waits_s": waits_s,
        }

    ready = {"first_batch_at": arrived_s, "looks": looks, "versions": dict(versions())}
    answer_rounds(run_round, ready)


def describe(images: Rows) -> dict[str, Any]:
    """Say what a batch looks like, for the harness to judge.

    Shape and dtype as delivered; of pixels in 0..255, the mean of each channel (R, G, B), and
    how much the rows' own means differ: none would mean one image over and over.
    """
    if not images.size:
        return {"shape": list(images.shape)}
    pixels = images if images.shape[-1] == 3 else np.moveaxis(images, 1, -1)
    return {
        "shape": list(images.shape),
        "dtype": str(images.dtype),
        "channel_means": [float(mean) for mean in pixels.mean(axis=(0, 1, 2))],
        "row_means_std": float(pixels.mean(axis=(1, 2, 3)).std()),
    }
