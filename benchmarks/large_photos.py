"""What does scaled decoding save: the same recipe with `scaled_decode` off and "auto", end to end.

On photos of three megapixels (2000 x 1500), which are made here whatever `--photos` is, and for
three sizes of rows, since the decoder can skip only what the resize would throw away. Both sides
are whole streams, a daemon with its producers and a client, and take turns.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._competitors import large_photo_client
from benchmarks._report import Figure, Options, rates, run_alone
from benchmarks._rounds import alternate, cost_ratios, ratios
from demo.photos import make_photos

QUESTION = "What does scaled decoding save on large photos?"

NUM_PHOTOS = 120
_MEGAPIXELS = 3.0
_SIDES_PX = (96, 160, 224)


def run(options: Options) -> list[Figure]:
    """Measure each size of rows."""
    with tempfile.TemporaryDirectory(prefix="augd-bench-") as folder:
        make_photos(folder, NUM_PHOTOS, megapixels=_MEGAPIXELS)
        return _compare(options, Path(folder))


def _compare(options: Options, photos: Path) -> list[Figure]:
    figures = []
    for side in _SIDES_PX:
        starts = [large_photo_client(options, photos, side, scaled) for scaled in ("off", "auto")]
        scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
        off, auto = scores["off"], scores["auto"]
        figures += rates(f"{side} px, off", off) + rates(f"{side} px, auto", auto)
        figures.append(Figure(f"{side} px: auto / off", "x images/s", ratios(auto, off)))
        figures.append(Figure(f"{side} px: auto / off", "x CPU", cost_ratios(auto, off)))
    return figures


if __name__ == "__main__":
    run_alone("large_photos", QUESTION, run)
