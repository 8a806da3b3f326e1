"""Rows of a client's current batch, as JPEG images.

It copies a few rows out of a slot that it maps for reading. Then it asks the daemon whether the
slot has still the same generation: only then are the bytes of one batch. Rows are copied and
encoded on request only.
"""

from __future__ import annotations

import io
import itertools
import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from augd.diagnostics.device_colour import recoloured
from augd.protocol.dashboard_messages import Seen
from augd.protocol.messages import ArraySpec
from augd.protocol.slot_layout import by_view
from augd.server.dashboard.daemon_link import DaemonLink
from augd.transport.arena import map_arena

ROWS_MAX = 64
_KEPT = 4  # batches, for pages that are open at the same time
# A client that waits has no batch, and one with short steps has each for a moment only.
_TRIED_S = 2.0
_PAUSE_S = 0.01
_SIDE_MAX_PX = 320
_QUALITY = 88
_PAPER = 255  # below views that are smaller than the largest

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Copied:
    """Some rows of a batch, the first of them row `first`.

    `images` and `colour` are by the name of their views, "" without names. There are colours if the
    device applies them.
    """

    seen: Seen
    first: int
    images: dict[str, NDArray[np.uint8]]
    labels: Array
    ids: NDArray[np.int64]
    valid: NDArray[np.bool_]
    colour: dict[str, Array]

    def image(self, at: int) -> bytes:
        """Encode a row as JPEG, its colours as the device makes them, its views side by side."""
        views = list[NDArray[np.uint8]]()
        for name, images in self.images.items():
            pixels = images[at]
            rows = list(pixels if pixels.ndim == 4 else pixels[None])
            if name in self.colour:
                matrices = self.colour[name][at].reshape(-1, 3, 4)
                rows = [recoloured(*pair) for pair in zip(rows, matrices, strict=True)]
            views += rows
        height, width = max(view.shape[0] for view in views), sum(v.shape[1] for v in views)
        sheet = np.full((height, width, 3), _PAPER, np.uint8)
        left = 0
        for view in views:
            sheet[: view.shape[0], left : left + view.shape[1]] = view
            left += view.shape[1]
        image = Image.fromarray(sheet)
        image.thumbnail((_SIDE_MAX_PX * len(views), _SIDE_MAX_PX))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=_QUALITY)
        return out.getvalue()


class BatchImages:
    """Copies rows, and keeps the last few batches for the requests that follow."""

    def __init__(self, daemon_link: DaemonLink) -> None:
        self._daemon_link = daemon_link
        self._kept: OrderedDict[int, Copied] = OrderedDict()
        self._numbers = itertools.count(1)

    def take(self, stream: int, first: int, count: int) -> tuple[int, Copied] | None:
        """Copy rows of the current batch, after waiting a little for one.

        Returns:
            A key for `kept`, and the copy; None if there is no batch.

        Raises:
            DaemonGone: the daemon ended or doesn't answer.
        """
        deadline = time.monotonic() + _TRIED_S
        while time.monotonic() < deadline:
            found = self._daemon_link.look(stream)
            if found is None:
                time.sleep(_PAUSE_S)
                continue
            copied = _copy(*found, first, min(count, ROWS_MAX))
            again = self._daemon_link.look(stream, copied.seen.slot)
            if again is None:
                continue
            os.close(again[1])
            if again[0].generation == copied.seen.generation:
                key = next(self._numbers)
                self._kept[key] = copied
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
                return key, copied
        return None

    def kept(self, key: int) -> Copied | None:
        """Return the copy with this key; None if later ones replaced it."""
        return self._kept.get(key)

    def describe(self, key: int, copied: Copied) -> dict[str, Any]:
        """Describe a copy as plain data."""
        seen = copied.seen
        return {
            "key": key,
            "stream": seen.stream,
            "dataset": seen.dataset,
            "epoch": seen.epoch,
            "number": seen.number,
            "rows": seen.rows,
            "pictures": [self._row(copied, at) for at in range(len(copied.ids))],
        }

    def _row(self, copied: Copied, at: int) -> dict[str, Any]:
        sample = int(copied.ids[at])
        arrays = self._daemon_link.datasets[copied.seen.dataset].arrays
        label = _name(copied.labels[at], copied.seen.classes or arrays.classes)
        return {
            "row": copied.first + at,
            "id": sample,
            "path": arrays.path(sample) if sample >= 0 else "",
            "label": label,
            "is_valid": bool(copied.valid[at]),
        }


def _copy(seen: Seen, fd: int, first: int, count: int) -> Copied:
    try:
        arena = map_arena(fd, seen.num_slots * seen.slot_bytes, is_read_only=True)
    finally:
        os.close(fd)
    slot = memoryview(arena)[seen.slot * seen.slot_bytes : (seen.slot + 1) * seen.slot_bytes]
    last = min(seen.rows, first + count)
    rows = {spec.name: _rows(slot, spec, first, last) for spec in seen.arrays}
    names = ("labels", "ids", "valid")
    return Copied(
        seen,
        first,
        **{name: rows[name] for name in names},
        images=by_view(rows, "images"),
        colour=by_view(rows, "colour"),
    )


def _rows(slot: memoryview, spec: ArraySpec, first: int, last: int) -> Array:
    dtype = np.dtype(spec.dtype)
    stride = dtype.itemsize * int(np.prod(spec.shape[1:], dtype=np.int64))
    start, end = (spec.offset + stride * row for row in (min(first, last), last))
    # `bytes` copies: the view must not outlive the slot's use.
    return np.frombuffer(bytes(slot[start:end]), dtype).reshape(-1, *spec.shape[1:])


def _name(label: Any, classes: Any) -> str:
    if np.ndim(label):
        return ", ".join(classes[column] for column in np.flatnonzero(label > 0))
    return classes[label] if 0 <= label < len(classes) else ""
