"""Run every benchmark: `python -m benchmarks`, or `make bench`."""

from __future__ import annotations

from benchmarks import (
    augmentation,
    cache,
    dataloader,
    delivery,
    first_batch,
    frames,
    kernels,
    large_photos,
    memory,
    packed,
    planning,
    recipes,
    remote,
    safety,
    stores,
    waiting,
    watching,
)
from benchmarks._report import Benchmark, run_all

_BENCHMARKS: dict[str, tuple[str, Benchmark]] = {
    "delivery": (delivery.QUESTION, delivery.run),
    "dataloader": (dataloader.QUESTION, dataloader.run),
    "frames": (frames.QUESTION, frames.run),
    "first_batch": (first_batch.QUESTION, first_batch.run),
    "memory": (memory.QUESTION, memory.run),
    "planning": (planning.QUESTION, planning.run),
    "augmentation": (augmentation.QUESTION, augmentation.run),
    "recipes": (recipes.QUESTION, recipes.run),
    "kernels": (kernels.QUESTION, kernels.run),
    "large_photos": (large_photos.QUESTION, large_photos.run),
    "cache": (cache.QUESTION, cache.run),
    "packed": (packed.QUESTION, packed.run),
    "remote": (remote.QUESTION, remote.run),
    "stores": (stores.QUESTION, stores.run),
    "safety": (safety.QUESTION, safety.run),
    "waiting": (waiting.QUESTION, waiting.run),
    "watching": (watching.QUESTION, watching.run),
}

if __name__ == "__main__":
    run_all(_BENCHMARKS, "python -m benchmarks")
