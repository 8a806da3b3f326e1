"""Receipts: digests of rows, which add up to digests of batches and epochs.

Producers compute them, clients compare them (docs/protocol.md, section Receipts). A row's digest is
a pure function of what the trainer gets, and sums do not depend on the order. So an epoch's digest
is the same for any batch size, number of producers, world size or resume.

Pure, and the only module of this package with NumPy: the daemon, which adds the digests, never
imports it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest, xxh3_128, xxh3_128_intdigest

from augd.protocol.digest_sums import DIGEST_MODULUS

# The finalizer of splitmix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
# generators", OOPSLA 2014; constants of its variant 13 by D. Stafford.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def rows_digest(
    ids: NDArray[Any],
    labels: NDArray[Any],
    images: NDArray[Any] | Sequence[NDArray[Any]],
    colour: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
) -> int:
    """Add the digests of these rows, modulo 2**128; padding (id -1) counts nothing.

    A row's is xxh3-128 of its pixels, seeded with xxh3-64 of id, label and colour matrix. `ids`
    int64 (n,), `labels` int64 (n,) or float32 (n, k), `images` uint8 (n, [v,] h, w, 3), `colour`
    float32 (n, [v,] 3, 4) where colours are the device's; bytes as they lie in the slot,
    little-endian. All views of a sample are one row. With view groups `images` and `colour` are
    arrays in the order of the slot, whose bytes follow each other.
    """
    heads = [_bytes_of_rows(ids), _bytes_of_rows(labels)]
    heads += [_bytes_of_rows(one) for one in _as_arrays(colour)]
    # All rows at once, then cut apart: cheaper than row by row.
    size = sum(head.shape[1] for head in heads)
    content = np.concatenate(heads, axis=1).tobytes()
    arrays, total = _as_arrays(images), 0
    pixels, others = arrays[0], arrays[1:]
    for row in np.flatnonzero(ids >= 0).tolist():
        seed = xxh3_64_intdigest(content[row * size : (row + 1) * size])
        if not others:
            total += xxh3_128_intdigest(pixels[row], seed)
            continue
        state = xxh3_128(pixels[row], seed)
        for array in others:
            state.update(array[row])
        total += state.intdigest()
    return total % DIGEST_MODULUS


def _as_arrays(arrays: NDArray[Any] | Sequence[NDArray[Any]] | None) -> Sequence[NDArray[Any]]:
    if arrays is None:
        return ()
    return (arrays,) if isinstance(arrays, np.ndarray) else arrays


def _bytes_of_rows(array: NDArray[Any]) -> NDArray[np.uint8]:
    size = array.dtype.itemsize * math.prod(array.shape[1:])
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), size)


def ids_digest(first_position: int, ids: NDArray[np.int64]) -> int:
    """Digest which samples stand at the positions from `first_position` on, modulo 2**64.

    Other samples, and the same ones in another order, give other sums; padding counts nothing.
    """
    positions = np.arange(first_position, first_position + len(ids)).astype(np.uint64)
    x = (positions + np.uint64(1)) * _GAMMA + ids.view(np.uint64)
    x = (x ^ (x >> _SHIFTS[0])) * _MIX_1
    x = (x ^ (x >> _SHIFTS[1])) * _MIX_2
    x ^= x >> _SHIFTS[2]
    return int(x[ids >= 0].sum())
