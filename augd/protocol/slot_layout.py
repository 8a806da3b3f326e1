"""The layout of a slot: where each array of a batch lies in shared memory.

Daemon, producers and clients derive their views from these numbers alone. Pure integer
arithmetic on Python integers, so that no product can overflow; allocates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from augd.errors import ProtocolError
from augd.protocol.limits import PIECE_BYTES
from augd.protocol.messages import ArraySpec, PhaseArrays

_Array = TypeVar("_Array")

ALIGNMENT_BYTES = 64  # a cache line: arrays of a slot share none
PAGE_BYTES = 4096  # slots start on pages, so that they can be pinned and advised one by one

ITEM_BYTES = {"uint8": 1, "bool": 1, "int64": 8, "float32": 4, "float64": 8}


def slot_layout(
    batch_size: int,
    height: int,
    width: int,
    num_targets: int = 0,
    *,
    num_views: int = 1,
    has_colour: bool = False,
    num_params: int = 0,
) -> tuple[tuple[ArraySpec, ...], int]:
    """Lay out one batch; returns the arrays and the slot's size in bytes.

    images uint8 (B, H, W, 3) RGB, labels int64 (B,) or with K targets float32 (B, K), ids int64
    (B,), valid bool (B,); where wanted colour float32 (B, 3, 4) and params float64 (B, num_params).
    With V > 1 views images, colour and params are (B, V, ...).
    """
    labels: tuple[str, tuple[int, ...]] = ("int64", (batch_size,))
    if num_targets:
        labels = ("float32", (batch_size, num_targets))
    rows = (batch_size,) if num_views == 1 else (batch_size, num_views)
    wanted: list[tuple[str, str, tuple[int, ...]]] = [
        ("images", "uint8", (*rows, height, width, 3)),
        ("labels", *labels),
        ("ids", "int64", (batch_size,)),
        ("valid", "bool", (batch_size,)),
    ]
    if has_colour:
        wanted.append(("colour", "float32", (*rows, 3, 4)))
    if num_params:
        wanted.append(("params", "float64", (*rows, num_params)))
    return _lay_out(wanted)


def views_layout(
    batch_size: int,
    views: Mapping[str, tuple[int, int, int]],
    num_targets: int = 0,
    *,
    has_colour: bool = False,
    num_params: int = 0,
) -> tuple[tuple[ArraySpec, ...], int]:
    """Lay out one batch of views with names, each (number, height, width).

    The arrays are those of `slot_layout`, but images, colour and params stand once for each name,
    as `images.NAME` of (B, number, ...).
    """
    plain = slot_layout(batch_size, 1, 1, num_targets)[0]
    rows = [(name, (batch_size, count)) for name, (count, _, _) in views.items()]
    wanted: list[tuple[str, str, tuple[int, ...]]] = [
        (array_name("images", name), "uint8", (batch_size, *shape, 3))
        for name, shape in views.items()
    ]
    wanted += [(spec.name, spec.dtype, spec.shape) for spec in plain if spec.name != "images"]
    if has_colour:
        wanted += [(array_name("colour", name), "float32", (*row, 3, 4)) for name, row in rows]
    if num_params:
        wanted += [
            (array_name("params", name), "float64", (*row, num_params)) for name, row in rows
        ]
    return _lay_out(wanted)


def array_name(kind: str, view: str) -> str:
    """Return the name of the array of some views; that of a plain recipe's has no view."""
    return f"{kind}.{view}" if view else kind


def by_view(arrays: Mapping[str, _Array], kind: str) -> dict[str, _Array]:
    """Return the arrays of a kind by the name of their views, in their order; "" for none."""
    return {
        name.partition(".")[2]: array
        for name, array in arrays.items()
        if name.partition(".")[0] == kind
    }


def arrays_at(
    arrays: Sequence[ArraySpec], phases: Sequence[PhaseArrays], epoch: int
) -> Sequence[ArraySpec]:
    """Return the arrays of an epoch's slots: those of the last phase that has begun."""
    for phase in phases:
        if phase.from_epoch <= epoch:
            arrays = phase.arrays
    return arrays


def chunk_layout(arrays: Sequence[ArraySpec], rows: int) -> tuple[tuple[ArraySpec, ...], int]:
    """Lay out the same arrays for `rows` rows: the slot of one chunk, and its size in bytes."""
    return _lay_out([(spec.name, spec.dtype, (rows, *spec.shape[1:])) for spec in arrays])


def _lay_out(
    wanted: Iterable[tuple[str, str, tuple[int, ...]]],
) -> tuple[tuple[ArraySpec, ...], int]:
    arrays = []
    offset = 0
    for name, dtype, shape in wanted:
        arrays.append(ArraySpec(name, dtype, shape, offset))
        offset = _round_up(offset + size_bytes(dtype, shape), ALIGNMENT_BYTES)
    return tuple(arrays), _round_up(offset, PAGE_BYTES)


def row_frames(arrays: Sequence[ArraySpec], first_row: int, rows: int) -> list[tuple[int, int]]:
    """List the frames in which a range of rows is sent, as (offset in the slot, size in bytes).

    Array by array, each cut into frames of at most `PIECE_BYTES`; both sides count them alike.
    """
    frames = []
    for spec in arrays:
        row_bytes = size_bytes(spec.dtype, spec.shape[1:])
        first, end = spec.offset + first_row * row_bytes, (first_row + rows) * row_bytes
        for start in range(first, spec.offset + end, PIECE_BYTES):
            frames.append((start, min(PIECE_BYTES, spec.offset + end - start)))
    return frames


def size_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Return the size of one array; raises `ProtocolError` for a dtype that no slot has."""
    if dtype not in ITEM_BYTES:
        raise ProtocolError(f"array of dtype {dtype!r}, expected one of {sorted(ITEM_BYTES)}")
    return ITEM_BYTES[dtype] * math.prod(shape)


def check_layout(arrays: Sequence[ArraySpec], slot_bytes: int) -> None:
    """Raise `ProtocolError` for arrays that overlap or exceed the slot, before a view is made."""
    end = 0
    for array in sorted(arrays, key=lambda spec: spec.offset):
        if array.offset < end:
            raise ProtocolError(f"array {array.name!r} starts at {array.offset}, inside another")
        end = array.offset + size_bytes(array.dtype, array.shape)
    if end > slot_bytes:
        raise ProtocolError(f"arrays end at byte {end} of a slot of {slot_bytes} bytes")


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
