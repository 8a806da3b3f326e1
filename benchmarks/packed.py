"""What does packing save: a packed set against the same files as they are.

Three cases. The presets `imagenet` and `resnet`, with 2x2 taps, over the given photos: the work of
producers alone, from the read to the finished row. And crops of 224 px at their own scale from
photos of twelve megapixels, made here: what one costs from segments, by region decoding of the
whole file, and by whole decoding with OpenCV. Sides take turns; all files are in the page cache.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from augd.cli.pack.command import pack
from augd.cli.pack.options import PackOptions
from benchmarks._competitors import crops, preset_sink
from benchmarks._report import Figure, Options, Target, rates, run_alone
from benchmarks._rounds import alternate, cost_ratios, ratios, spread
from demo.photos import make_photos

QUESTION = "What does packing save?"

_LARGE_PHOTOS = 12
_MEGAPIXELS = 12.0
_PRESETS = (("imagenet", 1.2), ("resnet", 1.4))


def run(options: Options) -> list[Figure]:
    """Pack, and measure each case."""
    with tempfile.TemporaryDirectory(prefix="augd-bench-") as folder:
        packed = Path(folder, "packed")
        report = pack(str(options.photos), str(packed), PackOptions())
        size = (report["shard_bytes"] + report["index_bytes"]) / report["source_bytes"]
        figures = [Figure("packed / source", "x bytes", spread([size]), Target("<=", 1.06))]
        for preset, aim in _PRESETS:
            figures += _compare(options, preset, packed, aim)
        loose, large = Path(folder, "loose"), Path(folder, "large")
        make_photos(loose, _LARGE_PHOTOS, megapixels=_MEGAPIXELS)
        pack(str(loose), str(large), PackOptions())
        return figures + _crop(options, loose, large)


def _compare(options: Options, preset: str, packed: Path, aim: float) -> list[Figure]:
    starts = [
        preset_sink(options, preset, options.photos, "loose"),
        preset_sink(options, preset, packed, "packed"),
    ]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    loose, cut = scores["loose"], scores["packed"]
    return [
        *rates(f"{preset}, loose", loose),
        *rates(f"{preset}, packed", cut),
        Figure(f"{preset}: packed / loose", "x images/s", ratios(cut, loose), Target(">=", aim)),
        Figure(f"{preset}: packed / loose", "x CPU", cost_ratios(cut, loose)),
    ]


def _crop(options: Options, loose: Path, large: Path) -> list[Figure]:
    starts = [crops(large, "segments"), crops(loose, "region"), crops(loose, "whole")]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    cut, region, whole = (scores[name] for name in ("segments", "region", "whole"))
    name = "224 px of 12 megapixels"
    figures = []
    for side, found in scores.items():
        figures += rates(f"{name}, {side}", found)
    return [
        *figures,
        Figure(f"{name}: segments / region", "x crops/s", ratios(cut, region), Target(">=", 20)),
        Figure(f"{name}: segments / whole", "x crops/s", ratios(cut, whole), Target(">=", 100)),
    ]


if __name__ == "__main__":
    run_alone("packed", QUESTION, run)
