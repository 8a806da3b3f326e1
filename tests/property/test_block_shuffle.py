"""Laws of the order by blocks: always a permutation, no sample favoured, and how well it mixes.

Bounds are those that a right order passes but once in a million times; the seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augd.plan.order.order import Order
from augd.plan.order.shuffle_option import BLOCK_SIZE_MAX, WINDOW_MAX, Blocks
from benchmarks.mixing import same_class_share
from tests.property.test_order_property import assert_even
from tests.support.examples import examples


@pytest.mark.parametrize(
    "blocks",
    [Blocks(*sides) for sides in ((1, 1), (1, 7), (3, 2), (7, 5), (16, 64), (90, 1))],
    ids=str,
)
def test_a_permutation_for_every_number_up_to_100(blocks):
    for num_samples in range(1, 101):
        positions = np.arange(num_samples, dtype=np.int64)
        found = Order(num_samples, 1, blocks).ids(num_samples, positions)
        np.testing.assert_array_equal(np.sort(found), positions)


@examples(30)
@given(
    num_samples=st.integers(1, 2**48),
    size=st.integers(1, BLOCK_SIZE_MAX),
    window=st.integers(1, WINDOW_MAX),
    seed=st.integers(-(2**63), 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_distinct_positions_get_distinct_samples_in_range(
    num_samples, size, window, seed, epoch, data
):
    # Some of them near each other, so that they share windows.
    near = data.draw(st.integers(0, num_samples - 1))
    chosen = data.draw(st.sets(st.integers(0, num_samples - 1), min_size=1, max_size=6))
    chosen |= set(range(near, min(near + 8, num_samples)))
    positions = np.array(sorted(chosen), np.int64)
    order = Order(num_samples, seed, Blocks(size, window))
    found = order.ids(epoch, positions)
    assert 0 <= found.min() <= found.max() < num_samples
    assert len(set(found.tolist())) == len(positions)
    # And whatever the chunking.
    fresh = Order(num_samples, seed, Blocks(size, window))
    one_by_one = [fresh.ids(epoch, positions[i : i + 1]).item() for i in range(len(positions))]
    assert one_by_one == found.tolist()


@pytest.mark.parametrize("num_samples", [1000, 1024])
def test_each_sample_stands_everywhere_equally_often(num_samples):
    """By sixteenths, over 1,500 epochs; the samples of a block move together."""
    num_epochs, parts, blocks = 1500, 16, Blocks(16, 16)
    order = Order(num_samples, 4, blocks)
    positions = np.arange(num_samples, dtype=np.int64)
    part_of = positions * parts // num_samples
    # One sample for each part of the index, so that an epoch's counts are nearly independent.
    asked = np.arange(parts) * num_samples // parts + 3
    counts = np.zeros((parts, parts))
    for epoch in range(num_epochs):
        stands = np.empty_like(positions)
        stands[order.ids(epoch, positions)] = positions
        np.add.at(counts, (np.arange(parts), part_of[stands[asked]]), 1)
    sizes = np.bincount(part_of)
    expected = np.broadcast_to(sizes / num_samples * num_epochs, counts.shape)
    assert_even(counts, expected, freedom=(parts - 1) * parts)


def test_where_a_sample_of_a_window_stands_in_it_is_even():
    """Rows of a block against places of its window, over many windows and epochs."""
    blocks = Blocks(16, 32)
    rows = blocks.size * blocks.window
    order = Order(rows * 50, 7, blocks)
    counts = np.zeros((16, 16))
    for epoch in range(20):
        ids = order.ids(epoch, np.arange(rows * 50, dtype=np.int64))
        place = np.arange(rows * 50) % rows * 16 // rows
        np.add.at(counts, (ids % 16, place), 1)
    assert_even(counts, counts.sum() / 256, freedom=15 * 15)


def test_a_window_of_many_blocks_mixes_classes_nearly_as_the_whole():
    """Same-class pairs in batches of 256, of a set sorted into 1,000 classes of 128."""
    num_samples, labels = 128_000, np.arange(128_000) // 128

    def measure(shuffle: bool | Blocks) -> float:
        order = Order(num_samples, 11, shuffle)
        return same_class_share(labels[order.ids(0, np.arange(num_samples))], 256)

    whole, none = measure(True), measure(False)
    assert whole == pytest.approx(0.001, rel=0.05)
    assert none > 0.49
    for blocks in (Blocks(256, 64), Blocks(16, 1024)):
        pairs = blocks.size * blocks.window - 1
        in_block = (min(blocks.size, 128) - 1) / pairs
        elsewhere = (128 - min(blocks.size, 128)) / num_samples
        assert measure(blocks) == pytest.approx(in_block + elsewhere, rel=0.1)
