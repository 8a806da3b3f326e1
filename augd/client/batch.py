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
from augd.errors import ReceiptMismatch
from augd.plan.mixing import Mixing
from augd.plan.params_layout import PARAMS
from augd.protocol import messages as msg
from augd.protocol.digest_sums import read_sum
from augd.protocol.row_digest import rows_digest

Array = NDArray[Any]
Labels = NDArray[np.int64] | NDArray[np.float32]


class Batch:
    """One batch: views into a slot of shared memory, valid until released.

    Attributes:
        images: uint8 (B, H, W, 3), RGB; with V > 1 views (B, V, H, W, 3).
        labels: int64 (B,); -1 for samples without a class, -100 where `valid` is false. For a
            multi-label dataset float32 (B, K).
        ids: int64 (B,): positions in the dataset's index; -1 for padding.
        valid: bool (B,): false for bad samples (zeros) and for padding.
        epoch, number: which batch it is, both counted from 0.
        position: where the global batch begins in the epoch, counted in samples.
        colour: float32 (B, 3, 4) if the recipe leaves colours to the device: the matrix that
            multiplies (R, G, B, 1), in grey levels; else None. With views (B, V, 3, 4).
        params: with `params=True`, the parameters drawn for each row, by name
            (`augd.plan.params_layout`): float64 (B, ...), with views (B, V, ...); else None.
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
        "colour",
        "digest",
        "epoch",
        "ids",
        "images",
        "labels",
        "mixing",
        "number",
        "params",
        "position",
        "targets",
        "valid",
    )

    def __init__(
        self,
        arrays: Mapping[str, Array],
        ready: msg.BatchMessage,
        finalizer: weakref.finalize[..., Any],
    ) -> None:
        self.images: NDArray[np.uint8] = arrays["images"]
        self.labels: Labels = arrays["labels"]
        self.ids: NDArray[np.int64] = arrays["ids"]
        self.valid: NDArray[np.bool_] = arrays["valid"]
        self.colour: NDArray[np.float32] | None = arrays.get("colour")
        self.params = _by_name(arrays["params"]) if "params" in arrays else None
        self.mixing: Mixing | None = None
        self.targets: NDArray[np.float32] | None = None
        self.epoch = ready.epoch
        self.number = ready.number
        self.position = ready.position
        self.digest = ready.digest[::-1].hex()
        self._finalizer = finalizer

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
        return f"<Batch {self.number} of epoch {self.epoch}, images {self.images.shape}>"


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
        for name, first, shape in PARAMS
    }


def _verify(ready: msg.BatchMessage, arrays: Mapping[str, Array]) -> None:
    rows = (arrays["ids"], arrays["labels"], arrays["images"])
    found = rows_digest(*rows, colour=arrays.get("colour"))
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
