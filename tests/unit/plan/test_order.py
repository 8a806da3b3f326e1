"""The order of an epoch: who stands where, at the edges, and frozen."""

from __future__ import annotations

import numpy as np
import pytest

from augd.errors import OptionError
from augd.plan.order.order import Order
from augd.plan.order.permutation import SORTED_UP_TO, feistel_sides

TRILLION = 10**12


def ids_of(num_samples, seed=0, epoch=0, shuffle=True, start=0, count=8):
    positions = np.arange(start, start + count, dtype=np.int64)
    return Order(num_samples, seed, shuffle).ids(epoch, positions).tolist()


# Frozen: a change of any of these numbers needs a new `content.ORDER_SCHEME`.
@pytest.mark.parametrize(
    ("num_samples", "seed", "epoch", "start", "expected"),
    [
        (1, 0, 0, 0, [0, -1, -1, -1, -1, -1, -1, -1]),
        (10, 0, 0, 0, [0, 2, 3, 4, 9, 1, 5, 8]),
        (10, 0, 1, 0, [8, 7, 3, 5, 4, 2, 9, 6]),
        (256, 7, 3, 100, [72, 253, 121, 67, 2, 131, 14, 15]),
        (257, 7, 3, 100, [248, 214, 200, 181, 171, 16, 187, 41]),
        (1000, 0, 0, 0, [134, 446, 762, 315, 319, 558, 971, 84]),
        (1000, -1, 4294967295, 990, [676, 743, 163, 214, 895, 990, 564, 784]),
        (1281167, 1, 0, 0, [630645, 1210443, 1200000, 759876, 794654, 1209455, 350711, 152862]),
        (1281167, 1, 1, 0, [195894, 164840, 318349, 647490, 906882, 1218264, 606931, 683002]),
        (
            1000000000000,
            1,
            0,
            500000000000,
            [
                831549260676,
                322460487172,
                72818011294,
                811431840050,
                368875149893,
                602944950963,
                309077755868,
                634386031722,
            ],
        ),
    ],
)
def test_the_order_is_frozen(num_samples, seed, epoch, start, expected):
    assert ids_of(num_samples, seed, epoch, start=start) == expected


def test_without_shuffle_the_order_is_the_index():
    assert ids_of(10, shuffle=False, start=5) == [5, 6, 7, 8, 9, -1, -1, -1]


@pytest.mark.parametrize("num_samples", [10, SORTED_UP_TO, SORTED_UP_TO + 1, 5000])
def test_positions_past_the_end_give_minus_one(num_samples):
    found = ids_of(num_samples, start=num_samples - 3)
    assert all(0 <= sample < num_samples for sample in found[:3])
    assert found[3:] == [-1] * 5


@pytest.mark.parametrize("num_samples", [7, 5000])
def test_an_epoch_per_position_equals_one_epoch_at_a_time(num_samples):
    order = Order(num_samples, 3, True)
    positions = np.array([0, 1, 2, 0, 1, 2, num_samples], np.int64)
    epochs = np.array([4, 4, 4, 5, 5, 2**32 - 1, 5], np.int64)
    mixed = order.ids(epochs, positions).tolist()
    fresh = Order(num_samples, 3, True)
    alone = [
        fresh.ids(int(e), np.array([p], np.int64)).item()
        for e, p in zip(epochs, positions, strict=True)
    ]
    assert mixed == alone
    assert mixed[-1] == -1


def test_epochs_and_seeds_give_other_orders():
    orders = {tuple(ids_of(5000, seed, epoch)) for seed in (0, 1, -1) for epoch in (0, 1, 99)}
    assert len(orders) == 9


def test_no_position_is_an_empty_answer():
    nothing = np.empty(0, np.int64)
    assert Order(5000, 0, True).ids(nothing, nothing).tolist() == []


def test_the_input_is_left_as_it_was_and_the_answer_is_new():
    for num_samples, shuffle in ((9, True), (5000, True), (9, False)):
        positions = np.arange(5, dtype=np.int64)
        order = Order(num_samples, 0, shuffle)
        first = order.ids(0, positions)
        first += 1
        assert positions.tolist() == [0, 1, 2, 3, 4]
        assert (order.ids(0, positions) == first - 1).all()


def test_going_back_after_many_epochs_gives_the_same():
    order = Order(1000, 5, True)
    positions = np.arange(1000, dtype=np.int64)
    first = order.ids(0, positions)
    for epoch in range(1, 40):
        order.ids(epoch, positions)
    np.testing.assert_array_equal(order.ids(0, positions), first)


def test_a_trillion_samples_cost_no_memory_and_stay_distinct():
    positions = np.linspace(0, TRILLION - 1, 100_000).astype(np.int64)
    found = Order(TRILLION, 1, True).ids(0, positions)
    assert found.min() >= 0
    assert found.max() < TRILLION
    assert len(np.unique(found)) == len(np.unique(positions))


@pytest.mark.parametrize("num_samples", [1, 2, 3, 10, 257, 1_281_167, TRILLION, 2**48])
def test_the_sides_leave_little_over(num_samples):
    a, b = (int(side) for side in feistel_sides(num_samples))
    assert b <= a
    assert num_samples <= a * b < num_samples + a


@pytest.mark.parametrize("num_samples", [0, -1, 2**48 + 1])
def test_a_number_of_samples_out_of_range_is_refused(num_samples):
    with pytest.raises(
        OptionError, match=rf"expected 1 <= num_samples <= 2\*\*48, got {num_samples}\."
    ):
        Order(num_samples, 0, True)
