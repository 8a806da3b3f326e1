"""A batch of a stream: NumPy views into one slot of shared memory. Copies no pixel.

Runs in the training process. `augd/client/stream.py` hands batches out.

Invariant: a slot is given back once, by `Batch.release` or when the last view of it is gone.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augd.client.connection import Connection
from augd.client.views import Views
from augd.errors import ReceiptMismatch
from augd.plan.mix_draws import Mixing
from augd.plan.params_layout import PARAMS, STEPS
from augd.protocol import messages as msg
from augd.protocol.digest_sums import read_sum
from augd.protocol.row_digest import rows_digest
from augd.protocol.slot_layout import by_view

Array = NDArray[Any]
Labels = NDArray[np.int64] | NDArray[np.float32]


class Batch:
    """One batch: views into a slot of shared memory, valid until released.

    Attributes:
        images: uint8 (B, H, W, 3), RGB; with V > 1 views (B, V, H, W, 3). A recipe with view groups
            has none: it has `views`.
        views: of a recipe with view groups, by name: uint8 (B, number, H, W, 3); else empty.
        labels: int64 (B,); -1 for samples without a class, -100 where `valid` is false. For a
            multi-label dataset float32 (B, K).
        ids: int64 (B,): positions in the dataset's index; -1 for padding.
        valid: bool (B,): false for bad samples (zeros) and for padding.
        epoch, number: which batch it is, both counted from 0.
        position: where the global batch begins in the epoch, counted in samples.
        colour: float32 (B, 3, 4) if the recipe leaves colours to the device: the matrix that
            multiplies (R, G, B, 1), in grey levels; else None. With views (B, V, 3, 4). With view
            groups by name.
        params: with `params=True`, the parameters drawn for each row, by name
            (`augd.plan.params_layout`): float64 (B, ...), with views (B, V, ...); else None. With
            view groups such a mapping by name.
        mixing: with a recipe that has `mix`, which rows were mixed, with what shares and boxes
            (`augd.Mixing`); else None.
        targets: with `mix`, float32 (B, K): the mixed targets, smoothed as the recipe says, all 0
            for rows without a class; else None.
        partners: with `mix`, int64 (B,): the row that is mixed in, a row itself if none is.
        share: with `mix`, float32 (B,): the weight of the row's own label.
        digest: of its rows, before mixing, 32 hexadecimal digits. `augd replay` recomputes and
            compares it.

    The slot is given back when the batch and every view of its arrays are gone, or by
    `release()`. After `release()` the arrays must not be read. Copy what must live longer.
    """

    __slots__ = (
        "__weakref__",
        "_finalizer",
        "_images",
        "colour",
        "digest",
        "epoch",
        "ids",
        "labels",
        "mixing",
        "number",
        "params",
        "position",
        "targets",
        "valid",
        "views",
    )

    def __init__(
        self,
        arrays: Mapping[str, Array],
        ready: msg.BatchMessage,
        finalizer: weakref.finalize[..., Any],
    ) -> None:
        self._images: NDArray[np.uint8] | None = arrays.get("images")
        self.views: Views[Array] = Views()
        colour, params = by_view(arrays, "colour"), by_view(arrays, "params")
        if self._images is None:
            self.views = Views(by_view(arrays, "images"))
        self.labels: Labels = arrays["labels"]
        self.ids: NDArray[np.int64] = arrays["ids"]
        self.valid: NDArray[np.bool_] = arrays["valid"]
        drawn = {name: _by_name(array) for name, array in params.items()}
        self.colour: Any = _as_grouped(colour)
        self.params: Any = _as_grouped(drawn)
        self.mixing: Mixing | None = None
        self.targets: NDArray[np.float32] | None = None
        self.epoch = ready.epoch
        self.number = ready.number
        self.position = ready.position
        self.digest = ready.digest[::-1].hex()
        self._finalizer = finalizer

    @property
    def images(self) -> NDArray[np.uint8]:
        """The rows of a recipe without view groups."""
        if self._images is None:
            raise AttributeError(self.views.instead_of_images())
        return self._images

    @images.setter
    def images(self, rows: NDArray[np.uint8]) -> None:
        self._images = rows

    @property
    def partners(self) -> NDArray[np.int64] | None:
        """The row that is mixed into each row, itself if none is; None without `mix`."""
        return None if self.mixing is None else self.mixing.partners

    @property
    def share(self) -> NDArray[np.float32] | None:
        """The weight of each row's own label, 0..1; None without `mix`."""
        return None if self.mixing is None else self.mixing.share

    def release(self) -> None:
        """Give the slot back now; the arrays must not be read any more."""
        self._finalizer()

    def __len__(self) -> int:
        """Rows of this batch."""
        return len(self.ids)

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {array.shape}" for name, array in self.views.items())
        if self._images is not None:
            rows = f"images {self._images.shape}"
        return f"<Batch {self.number} of epoch {self.epoch}, {rows}>"


def _as_grouped(by_name: dict[str, Any]) -> Any:
    """Return what stands by the name of views: by itself for a recipe without groups."""
    if not by_name:
        return None
    return by_name[""] if "" in by_name else Views(by_name)


def open_batch(
    connection: Connection,
    arrays: Sequence[msg.ArraySpec],
    ready: msg.BatchMessage,
    *,
    is_verified: bool,
) -> Batch:
    """Make a batch of the slot that a BATCH message names.

    Raises:
        ReceiptMismatch: with `is_verified`, the bytes have another digest than their producers'.
    """
    root = np.frombuffer(connection.slots[ready.slot], np.uint8)
    # Every array is a view of `root`, so it lives exactly as long as the last of them.
    finalizer = weakref.finalize(root, connection.release, ready.slot, ready.generation)
    finalizer.atexit = False
    views = {spec.name: _rows_of(root, spec, ready.rows) for spec in arrays}
    if is_verified:
        _verify(ready, views)
    return Batch(views, ready, finalizer)


def _by_name(params: Array) -> dict[str, Array]:
    """Split the parameters of rows by name, as views."""
    return {
        name: params[..., first]
        if not shape
        else params[..., first : first + math.prod(shape)].reshape(*params.shape[:-1], *shape)
        for name, first, shape in (*PARAMS, STEPS)
        if first < params.shape[-1]
    }


def _verify(ready: msg.BatchMessage, arrays: Mapping[str, Array]) -> None:
    pixels, colour = (tuple(by_view(arrays, kind).values()) for kind in ("images", "colour"))
    found = rows_digest(arrays["ids"], arrays["labels"], pixels, colour)
    if found != read_sum(ready.digest):
        raise ReceiptMismatch(
            f"batch {ready.number} of epoch {ready.epoch}: the digest of its bytes is {found:032x} "
            f"here, its producers made {ready.digest[::-1].hex()}: memory was overwritten, or the "
            "transport changed it"
        )


def _rows_of(root: NDArray[np.uint8], spec: msg.ArraySpec, rows: int) -> Array:
    dtype = np.dtype(spec.dtype)
    shape = (rows, *spec.shape[1:])
    count = dtype.itemsize
    for length in shape:
        count *= length
    return root[spec.offset : spec.offset + count].view(dtype).reshape(shape)
