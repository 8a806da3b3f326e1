"""The order of an epoch that is shuffled by blocks: frozen, exact at the edges, and near the index.

Its laws for all numbers, and how well it mixes, are in tests/property/test_block_shuffle.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from augd.errors import OptionError
from augd.plan.order.order import Order
from augd.plan.order.shuffle_option import BLOCK_SIZE_MAX, WINDOW_MAX, Blocks, read_shuffle

TRILLION = 10**12


def ids_of(num_samples, blocks, seed=0, epoch=0, start=0, count=8):
    positions = np.arange(start, start + count, dtype=np.int64)
    return Order(num_samples, seed, blocks).ids(epoch, positions).tolist()


# Frozen: a change of any of these numbers needs a new `content.BLOCKS_SCHEME`.
@pytest.mark.parametrize(
    ("num_samples", "seed", "epoch", "blocks", "start", "expected"),
    [
        (10, 0, 0, Blocks(3, 2), 0, [2, 1, 0, 9, 8, 3, 7, 4]),
        (1000, 0, 0, Blocks(16, 8), 0, [483, 273, 1, 173, 282, 333, 760, 279]),
        (1000, -1, 4294967295, Blocks(16, 8), 990, [154, 706, 984, 216, 716, 219, 976, 209]),
        (
            *(1281167, 1, 0, Blocks(256, 64), 0),
            [559921, 24855, 197075, 89173, 338907, 695120, 1067104, 306713],
        ),
        (
            *(1281167, 1, 1, Blocks(256, 64), 1281160),
            [4785, 1278900, 4677, 114650, 260972, 539790, 1036886, -1],
        ),
        (
            *(TRILLION, 1, 0, Blocks(256, 64), TRILLION // 2),
            [
                *(395009743918, 706682792428, 508089536819, 31364198206),
                *(178433892919, 960524153459, 579508217443, 307862465799),
            ],
        ),
    ],
)
def test_the_order_is_frozen(num_samples, seed, epoch, blocks, start, expected):
    assert ids_of(num_samples, blocks, seed, epoch, start=start) == expected


@pytest.mark.parametrize("num_samples", [1000, 1024, 1001, 15, 16])
def test_a_block_is_in_one_window_and_a_window_has_its_blocks(num_samples):
    blocks = Blocks(16, 8)
    order = Order(num_samples, 3, blocks)
    for epoch in range(20):
        ids = order.ids(epoch, np.arange(num_samples, dtype=np.int64))
        found = ids // blocks.size
        first, last = np.full(63 + 2, num_samples), np.zeros(63 + 2, np.int64)
        np.minimum.at(first, found, np.arange(num_samples))
        np.maximum.at(last, found, np.arange(num_samples))
        used = first < num_samples
        assert (last - first)[used].max() < blocks.size * blocks.window
        # Windows follow one another: by the place where a block begins, so many share a window.
        edges = np.flatnonzero(np.maximum.accumulate(last[found]) == np.arange(num_samples)) + 1
        in_window = [len(set(part.tolist())) for part in np.split(found, edges) if len(part)]
        assert sum(in_window) == used.sum()
        assert max(in_window) <= blocks.window


def test_the_shorter_block_stands_at_every_place():
    order = Order(100, 0, Blocks(16, 1))
    starts = set()
    for epoch in range(200):
        ids = order.ids(epoch, np.arange(100, dtype=np.int64))
        at = np.flatnonzero(ids >= 96)
        assert at.tolist() == list(range(at[0], at[0] + 4)), "in a window of its own, together"
        starts.add(int(at[0]))
    assert starts == {0, 16, 32, 48, 64, 80, 96}


def test_a_window_of_the_whole_set_mixes_it_whole():
    ids = np.array(ids_of(1000, Blocks(16, 64), count=1000))
    far = np.abs(np.diff(np.argsort(ids, kind="stable")))
    assert far.mean() == pytest.approx(1000 / 3, rel=0.1)


def test_going_back_after_many_windows_and_epochs_gives_the_same():
    order = Order(1000, 5, Blocks(8, 2))
    positions = np.arange(1000, dtype=np.int64)
    first = order.ids(0, positions)
    for epoch in range(1, 20):
        order.ids(epoch, positions)
    np.testing.assert_array_equal(order.ids(0, positions), first)
    # Whatever the chunking, and asked in whatever order.
    order = Order(1000, 5, Blocks(8, 2))
    for start in reversed(range(0, 1000, 7)):
        part = positions[start : start + 7]
        np.testing.assert_array_equal(order.ids(0, part), first[start : start + 7])


def test_epochs_and_seeds_differ():
    orders = {
        tuple(ids_of(1000, Blocks(16, 8), seed, epoch, count=1000))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_positions_past_the_end_give_minus_one():
    assert ids_of(1000, Blocks(16, 8), start=998)[2:] == [-1] * 6


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (True, True),
        (False, False),
        ("blocks", Blocks(64, 256)),
        ("blocks:1000x16", Blocks(1000, 16)),
        (f"blocks:{BLOCK_SIZE_MAX}x{WINDOW_MAX}", Blocks(BLOCK_SIZE_MAX, WINDOW_MAX)),
    ],
)
def test_the_argument_is_read_and_written(asked, expected):
    assert read_shuffle(asked) == expected
    if isinstance(expected, Blocks):
        assert read_shuffle(str(expected)) == expected


@pytest.mark.parametrize(
    "asked",
    [
        *(
            1,
            None,
            "yes",
            "block",
            "blocks:",
            "blocks:16",
            "blocks:16x",
            "blocks:0x8",
            "blocks:8x0",
        ),
        *("blocks:-1x8", "blocks:16x8 ", "blocks:1.5x8", "blocks:\u0661x1"),
        *(f"blocks:{BLOCK_SIZE_MAX + 1}x1", f"blocks:1x{WINDOW_MAX + 1}"),
    ],
)
def test_another_argument_is_refused(asked):
    with pytest.raises(OptionError, match="shuffle: expected True, False") as error:
        read_shuffle(asked)
    assert f"got {asked!r}" in str(error.value)
