"""Laws of the order: always a permutation, and no permutation favoured.

Bounds are those that a right order passes but once in a million times; the seeds are fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augd.plan.order.order import Order
from augd.plan.order.permutation import feistel, feistel_sides, round_keys
from tests.support.examples import examples


def chi_square_bound(freedom: int) -> float:
    """Return what chi-square passes once in a million times (Wilson and Hilferty 1931)."""
    share = 2 / (9 * freedom)
    return freedom * (1 - share + 4.753424 * math.sqrt(share)) ** 3


def assert_even(counts: np.ndarray, expected: float | np.ndarray, freedom: int) -> None:
    assert ((counts - expected) ** 2 / expected).sum() < chi_square_bound(freedom)


def epochs_of(num_samples: int, num_epochs: int, seed: int) -> np.ndarray:
    order = Order(num_samples, seed, True)
    positions = np.arange(num_samples, dtype=np.int64)
    return np.stack([order.ids(epoch, positions) for epoch in range(num_epochs)])


@pytest.mark.parametrize("hundred", range(10))
def test_a_permutation_for_every_number_up_to_1000(hundred):
    for num_samples in range(100 * hundred + 1, 100 * hundred + 101):
        positions = np.arange(num_samples, dtype=np.int64)
        order = Order(num_samples, 1, True).ids(num_samples, positions)
        np.testing.assert_array_equal(np.sort(order), positions)
        # The network itself too, where the order would sort instead of it.
        keys = round_keys(2, num_samples)
        found = feistel(positions, num_samples, feistel_sides(num_samples), keys)
        np.testing.assert_array_equal(np.sort(found), positions)


@examples(60)
@given(
    num_samples=st.integers(1, 2**48),
    seed=st.integers(-(2**63), 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_distinct_positions_get_distinct_samples_in_range(num_samples, seed, epoch, data):
    chosen = data.draw(st.sets(st.integers(0, num_samples - 1), min_size=1, max_size=40))
    positions = np.array(sorted(chosen), np.int64)
    order = Order(num_samples, seed, True)
    found = order.ids(epoch, positions)
    assert 0 <= found.min() <= found.max() < num_samples
    assert len(set(found.tolist())) == len(positions)
    # And whatever the chunking.
    one_by_one = [order.ids(epoch, positions[i : i + 1]).item() for i in range(len(positions))]
    assert one_by_one == found.tolist()


def test_at_ten_samples_each_stands_everywhere_equally_often():
    orders = epochs_of(10, 4000, seed=1)
    counts = np.stack([np.bincount(orders[:, position], minlength=10) for position in range(10)])
    assert_even(counts, 400.0, freedom=81)


def test_at_ten_samples_each_pair_follows_equally_often():
    orders = epochs_of(10, 4000, seed=2)
    counts = np.zeros((10, 10))
    np.add.at(counts, (orders[:, 0], orders[:, 1]), 1)
    assert (np.diag(counts) == 0).all()
    assert_even(counts[~np.eye(10, dtype=bool)], 4000 / 90, freedom=89)


def test_all_24_permutations_of_four_are_equally_often():
    orders = epochs_of(4, 4800, seed=3)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert_even(counts, 200.0, freedom=23)


@pytest.mark.parametrize("num_samples", [257, 1000])
def test_the_network_puts_each_sample_everywhere_equally_often(num_samples):
    num_epochs, parts = 600, 16
    orders = epochs_of(num_samples, num_epochs, seed=4)
    part_of = np.arange(num_samples) * parts // num_samples
    counts = np.zeros((parts, parts))
    for order in orders:
        np.add.at(counts, (part_of, part_of[order]), 1)
    sizes = np.bincount(part_of)
    assert_even(counts, np.outer(sizes, sizes) / num_samples * num_epochs, freedom=(parts - 1) ** 2)


@pytest.mark.parametrize("num_samples", [257, 1000, 1_281_167])
def test_the_networks_neighbours_are_unrelated(num_samples):
    """The step from one position's sample to the next one's is even around the circle."""
    parts, count = 32, min(num_samples, 4000)
    order = Order(num_samples, 5, True)
    steps = np.zeros(parts)
    num_epochs = 400_000 // count if num_samples <= 1000 else 30
    for epoch in range(num_epochs):
        found = order.ids(epoch, np.arange(count, dtype=np.int64))
        step = (np.diff(found) % num_samples) - 1
        steps += np.bincount(step * parts // (num_samples - 1), minlength=parts)
    sizes = np.bincount(np.arange(num_samples - 1) * parts // (num_samples - 1), minlength=parts)
    assert_even(steps, sizes / sizes.sum() * steps.sum(), freedom=parts - 1)
