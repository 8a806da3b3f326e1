"""Is memory bounded: what daemon and producers own, over fifty epochs.

Anonymous memory only: arenas and the page cache are shared, and counted elsewhere. Once with
few samples, so that all that is done per epoch is done often, and once with the photos. A
producer between two photos owns 20 MB less than in one, so growth is that of the floor: a leak
raises it, and what a photo needs for a moment does not.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import augd
from augd.diagnostics.measure import Probe, memory_bytes
from benchmarks._competitors import recipe
from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import spread

QUESTION = "Is memory bounded?"
_EPOCHS = 50
_WINDOW = 5
_SETTLED_AFTER = 2  # windows in which buffers grow to the largest photo
_FEW = 128
_MB = 1e6
# A leak of one row's 150 kB per epoch would show; allocators' give and take is some MB in all.
_FLAT = Target("<=", 0.1)


def run(options: Options) -> list[Figure]:
    """Follow both sets over fifty epochs."""
    files = sorted(path for path in options.photos.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory(prefix="augd-bench-") as folder:
        for path in files[:_FEW]:
            shutil.copy(path, folder)
        figures = _follow("few samples", Path(folder), options.workers)
    return figures + _follow("all photos", options.photos, options.workers)


def _follow(name: str, photos: Path, workers: int) -> list[Figure]:
    """Look after every batch; the sizes of each window of epochs are kept together."""
    found: dict[str, list[list[float]]] = {"daemon": [], "producer": []}
    with (
        augd.serve(photos, producers=workers) as served,
        augd.connect(served.address, recipe=recipe("antialias"), batch_size=32) as stream,
    ):
        probe = Probe(stream, served.address)
        for epoch in range(_EPOCHS):
            if epoch % _WINDOW == 0:
                for windows in found.values():
                    windows.append([])
            for batch in stream.epoch(epoch):
                batch.release()
                daemon, producers = memory_bytes(probe.snapshot())
                found["daemon"][-1].append(daemon / _MB)
                found["producer"][-1] += [size / _MB for size in producers]
        probe.close()
    figures = []
    for side, bound in (("daemon", 60.0), ("producer", 80.0)):
        most = spread(max(sizes) for sizes in found[side])
        growth = growth_per_epoch([min(sizes) for sizes in found[side]])
        figures += [
            Figure(f"{side}, {name}: most", "MB", spread([most.high]), Target("<=", bound)),
            Figure(f"{side}, {name}: most per {_WINDOW} epochs", "MB", most),
            Figure(f"{side}, {name}: growth", "MB/epoch", spread([growth]), _FLAT),
        ]
    return figures


def growth_per_epoch(floors: Sequence[float]) -> float:
    """Fit a line through the floors of the windows after the first two; returns its slope."""
    settled = floors[_SETTLED_AFTER:]
    epochs = [_WINDOW * number for number in range(len(settled))]
    return statistics.linear_regression(epochs, settled).slope


if __name__ == "__main__":
    run_alone("memory", QUESTION, run)
