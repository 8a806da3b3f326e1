"""What does a cache of decoded images gain: against decoding, FFCV's raw file, and the limit.

Whole streams, a daemon with its producers and a client, by the law that all peers follow (random
resized crop and mirror). All sides take turns, everything is warm. FFCV takes part where
`python -m benchmarks.peers.install ffcv` made its environment; its filter is OpenCV's area. The
limit is the resize kernel alone, as many processes of it, on crops that were planned before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks._competitors import (
    Start,
    cached_client,
    ffcv_raw,
    new_daemon,
    resize_only,
)
from benchmarks._report import Absent, Figure, Options, Target, rates, run_alone
from benchmarks._rounds import alternate, cost_ratios, ratios
from benchmarks.peers.catalogue import FFCV_RAW, SIDES_BY_NAME, recipe
from benchmarks.peers.compare import Unfit, write_ffcv
from benchmarks.peers.install import is_ready
from demo.photos import make_photos

QUESTION = "What does a cache of decoded images gain?"

_CACHE = "ram:2GB"  # a thousand photos of ImageNet decoded are 0.6 GB
_NUM_LARGE = 120
_LARGE_BATCH = 32  # as many batches in a round as of small photos
_AGAINST_FFCV = {"linear": Target(">=", 4.5), "antialias": Target(">=", 3.0)}
_OF_THE_LIMIT = Target(">=", 0.7)


def run(options: Options) -> Sequence[Figure | Absent]:
    """Measure both filters beside FFCV."""
    with tempfile.TemporaryDirectory(prefix="augd-bench-") as folder:
        why, file = "", ""
        if is_ready("ffcv"):
            try:
                file = str(write_ffcv(SIDES_BY_NAME[FFCV_RAW], options.photos, Path(folder)))
            except Unfit as error:
                why = str(error)
        else:
            why = "it is not installed: python -m benchmarks.peers.install ffcv"
        found: list[Figure | Absent] = [Absent(FFCV_RAW, why)] if why else []
        for filter in ("linear", "antialias"):
            found += _compare(options, filter, file)
        found += _first_epochs(options, Path(folder))
        found += _large_photos(options, Path(folder))
        return found


def _first_epochs(options: Options, folder: Path) -> list[Figure]:
    """Measure what filling costs, and what a full cache on a disk gives that was asleep."""
    plain = recipe("antialias")
    on_disk = f"disk:{folder}/full:2GB"
    scores = alternate(
        [
            new_daemon(options, plain, "files", is_cold=False),
            new_daemon(options, plain, "filling", is_cold=False, cache=_CACHE),
            new_daemon(options, plain, "cold files", is_cold=True),
            new_daemon(
                options, plain, "cold cache", is_cold=True, cache=on_disk, folder=f"{folder}/full"
            ),
        ],
        rounds=options.rounds,
        seconds=0.0,
    )
    filling, files = scores["filling"], scores["files"]
    cold, cold_files = scores["cold cache"], scores["cold files"]
    return [
        Figure("first epoch: filling a cache / without", "x images/s", ratios(filling, files)),
        Figure("first epoch: filling a cache / without", "x CPU", cost_ratios(filling, files)),
        Figure("cold: cache on disk / files", "x images/s", ratios(cold, cold_files)),
        Figure("cold: cache on disk / files", "x CPU", cost_ratios(cold, cold_files)),
        *rates("cold files", cold_files),
        *rates("cold cache on disk", cold),
    ]


def _large_photos(options: Options, folder: Path) -> list[Figure]:
    """Compare once more with photos of three megapixels, which are made here."""
    photos = folder / "large"
    make_photos(photos, _NUM_LARGE, megapixels=3.0)
    large = replace(options, photos=photos)
    plain = recipe("antialias")
    starts = [
        cached_client(large, plain, name, cache, batch_size=_LARGE_BATCH)
        for name, cache in (("cache", _CACHE), ("decode", None))
    ]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    cache, decoding = scores["cache"], scores["decode"]
    return [
        Figure("3 megapixels: cache / decoding", "x images/s", ratios(cache, decoding)),
        *rates("3 megapixels, cache", cache),
        *rates("3 megapixels, decoding", decoding),
    ]


def _compare(options: Options, filter: str, file: str) -> list[Figure]:
    plain = recipe(filter)
    starts: list[Start] = [
        cached_client(options, plain, "cache", _CACHE),
        cached_client(options, plain, "decoding", None),
        resize_only(options, plain, "resize"),
    ]
    if file:
        starts.append(ffcv_raw(options, file, "ffcv"))
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    cache, decoding, alone = scores["cache"], scores["decoding"], scores["resize"]
    figures = [
        Figure(f"cache / decoding, {filter}", "x images/s", ratios(cache, decoding)),
        Figure(
            f"cache / resize alone, {filter}", "x images/s", ratios(cache, alone), _OF_THE_LIMIT
        ),
        Figure(f"cache / resize alone, {filter}", "x CPU", cost_ratios(cache, alone)),
        *rates(f"cache, {filter}", cache),
        *rates(f"decoding, {filter}", decoding),
        *rates(f"resize alone, {filter}", alone),
    ]
    if file:
        ffcv = scores["ffcv"]
        target = _AGAINST_FFCV[filter]
        figures += [
            Figure(f"cache / {FFCV_RAW}, {filter}", "x images/s", ratios(cache, ffcv), target),
            Figure(f"cache / {FFCV_RAW}, {filter}", "x CPU", cost_ratios(cache, ffcv)),
            *rates(f"{FFCV_RAW}, beside {filter}", ffcv),
        ]
    return figures


if __name__ == "__main__":
    run_alone("cache", QUESTION, run)
