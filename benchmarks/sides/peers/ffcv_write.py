"""Write photos into FFCV's own file, before anything is measured: FFCV reads nothing else.

`jpg`: each file's own bytes, so that FFCV decodes the same JPEGs as the others. `small`: no side
above 400 px, JPEG quality 90, as FFCV's authors do for ImageNet. `raw`: pixels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField, rgb_image
from ffcv.writer import DatasetWriter
from PIL import Image

from benchmarks.sides.peers._loop import photo_paths

_SMALL_PX = 400
_SMALL_QUALITY = 90
# The writer's default of 8 MB holds no raw photo of more than 2.8 megapixels.
_PAGE_BYTES = 1 << 25

_FIELDS = {
    "jpg": lambda: RGBImageField(write_mode="jpg"),
    "small": lambda: RGBImageField(
        write_mode="jpg", max_resolution=_SMALL_PX, jpeg_quality=_SMALL_QUALITY
    ),
    "raw": lambda: RGBImageField(write_mode="raw"),
}


class Photos:
    """Photos as the writer wants them; remembers the last one's own bytes."""

    def __init__(self, paths: list[str]) -> None:
        """Take the files."""
        self._paths = paths
        self.content = b""

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        """Decode one."""
        self.content = Path(self._paths[number]).read_bytes()
        with Image.open(self._paths[number]) as photo:
            if photo.mode not in ("RGB", "L"):
                raise SystemExit(
                    f"{self._paths[number]}: expected an RGB or grey JPEG, got {photo.mode}; "
                    "FFCV decodes no other: leave it out"
                )
            return np.array(photo.convert("RGB")), 0


def main(arguments: Mapping[str, Any]) -> None:
    """Write once and end. Arguments: photos, form, out."""
    photos = Photos(photo_paths(arguments["photos"]))
    if arguments["form"] == "jpg":
        # A worker takes a photo and encodes it at once; FFCV has no field for bytes that are
        # a JPEG already.
        vars(rgb_image).update(
            encode_jpeg=lambda image, quality: np.frombuffer(photos.content, np.uint8)
        )
    fields = {"image": _FIELDS[arguments["form"]](), "label": IntField()}
    writer = DatasetWriter(arguments["out"], fields, num_workers=1, page_size=_PAGE_BYTES)
    writer.from_indexed_dataset(photos)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
