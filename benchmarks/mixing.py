"""How well does a shuffle by blocks mix, and what does it save to read?

No photo and no clock: the figures are counted in the order of one epoch, over samples that lie in
the index's order in shards, sorted by class, as datasets of folders and of tars do. Printed, for
each shuffle:

    same class     pairs of a batch that share their class, in percent
    entropy        of a batch's classes, in bits
    apart          positions between samples that are neighbours in the index, the median
    within 1,000   neighbours that come within a thousand positions of each other, in percent
    shards         different ones in a batch, and in a thousand samples
    MiB touched    by a thousand samples, in pieces of 1 MiB
    MiB read       for a thousand samples, where the pieces last used are kept, up to --cache-gib
"""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from augd.plan.order.order import Order
from augd.plan.order.shuffle_option import read_shuffle

_SHUFFLES = "True blocks:16x1024 blocks:64x256 blocks:256x64 blocks:2300x8 blocks:64x1024 False"
_READ_SAMPLES = 1000
_PIECE_BYTES = 1 << 20


def same_class_share(labels: NDArray[np.int64], batch_size: int) -> float:
    """Return the share of pairs within a batch, over all whole batches, that share their class."""
    runs = _runs(_batches(labels, batch_size)).astype(np.float64)
    return float((runs * (runs - 1)).sum() / (len(labels) // batch_size)) / (
        batch_size * (batch_size - 1)
    )


def entropy_bits(labels: NDArray[np.int64], batch_size: int) -> float:
    """Return the mean entropy of the classes of a batch."""
    share = _runs(_batches(labels, batch_size)) / batch_size
    return float(-(share * np.log2(share)).sum() / (len(labels) // batch_size))


def num_distinct(values: NDArray[np.int64], group: int) -> float:
    """Return how many different values a group of positions has, in the mean."""
    return len(_runs(_batches(values, group))) / (len(values) // group)


def _batches(values: NDArray[np.int64], group: int) -> NDArray[np.int64]:
    """Cut into whole groups, each sorted, and number the values of each group apart."""
    num_groups = len(values) // group
    cut = np.sort(values[: num_groups * group].reshape(num_groups, group), axis=1)
    return cut + np.arange(num_groups)[:, None] * (int(values.max()) + 1)


def _runs(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each value comes in its group, for all groups one after the other."""
    flat = groups.reshape(-1)
    edges = np.flatnonzero(np.diff(flat, prepend=-1, append=-1))
    return np.diff(edges)


def num_reads(pieces: Iterable[int], kept_max: int) -> int:
    """Count the pieces that must be read, where the `kept_max` used last are kept."""
    kept: OrderedDict[int, None] = OrderedDict()
    num_read = 0
    for piece in pieces:
        if piece in kept:
            kept.move_to_end(piece)
            continue
        num_read += 1
        kept[piece] = None
        if len(kept) > kept_max:
            kept.popitem(last=False)
    return num_read


def measure(shuffle: str, asked: argparse.Namespace) -> dict[str, float]:
    """Count everything in one epoch."""
    num = asked.samples
    read = {"True": True, "False": False}.get(shuffle, shuffle)
    ids = Order(num, 0, read_shuffle(read)).ids(0, np.arange(num, dtype=np.int64))
    stands = np.empty_like(ids)
    stands[ids] = np.arange(num)
    apart = np.abs(np.diff(stands))
    labels = ids * asked.classes // num
    shards = ids // asked.per_shard
    pieces = ids * asked.photo_bytes // _PIECE_BYTES
    num_kept = int(asked.cache_gib * (1 << 30)) // _PIECE_BYTES
    num_thousands = num / _READ_SAMPLES
    return {
        "same class, %": 100 * same_class_share(labels, asked.batch_size),
        "entropy, bits": entropy_bits(labels, asked.batch_size),
        "apart": float(np.median(apart)),
        "within 1,000, %": 100 * float((apart <= 1000).mean()),
        "shards, batch": num_distinct(shards, asked.batch_size),
        "shards, 1,000": num_distinct(shards, _READ_SAMPLES),
        "MiB touched": num_distinct(pieces, _READ_SAMPLES),
        "MiB read": num_reads(pieces.tolist(), num_kept) / num_thousands,
    }


def main() -> None:
    """Print a table, and one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixing")
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--photo-bytes", type=int, default=110_000)
    parser.add_argument("--per-shard", type=int, default=2300, help="samples of a shard [2300]")
    parser.add_argument("--cache-gib", type=float, default=4.0)
    parser.add_argument("--shuffle", nargs="+", default=_SHUFFLES.split())
    asked = parser.parse_args()
    found = {shuffle: measure(shuffle, asked) for shuffle in asked.shuffle}
    names = list(next(iter(found.values())))
    print(f"| shuffle | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for shuffle, figures in found.items():
        print(f"| `{shuffle}` | {' | '.join(f'{figures[name]:,.4g}' for name in names)} |")
    print(
        json.dumps({"figures": found, **{k: v for k, v in vars(asked).items() if k != "shuffle"}})
    )


if __name__ == "__main__":
    main()
