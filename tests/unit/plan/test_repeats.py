"""Repeated samples: where the copies stand, and that each is drawn anew."""

from __future__ import annotations

import numpy as np
import pytest

import augd
from augd.plan.content import content_of
from augd.plan.order.repeat_option import ONCE, Repeats, read_repeats
from augd.plan.order.sample_sequence import Draw

NUM = 1000


def rows(repeats: Repeats, count: int = NUM, **more):
    draw = Draw(NUM, 5, True, repeats=repeats, **more)
    return draw.rows(4, np.arange(count, dtype=np.int64))


@pytest.mark.parametrize(("count", "spread"), [(2, 1), (3, 1), (4, 8), (3, 32)])
def test_copies_stand_where_they_should(count, spread):
    ids, epochs = rows(Repeats(count, spread))
    window = count * spread
    for first in range(0, NUM - window + 1, window):
        block = ids[first : first + window].reshape(count, spread)
        assert (block == block[0]).all()
        assert len(set(block[0].tolist())) == spread
    whole = NUM // window * window
    assert len(set(ids[:whole].tolist())) == whole // count
    first_copies = np.arange(NUM) % window < spread
    assert (epochs[first_copies] == 4).all()
    assert len(set(epochs[~first_copies].tolist())) == (~first_copies).sum()
    assert 0 <= epochs.min() <= epochs.max() < 2**32


def test_the_samples_are_the_first_of_the_order():
    once, _ = Draw(NUM, 5, True).rows(4, np.arange(NUM, dtype=np.int64))
    ids, _ = rows(Repeats(4, 1))
    assert ids[::4].tolist() == once[: NUM // 4].tolist()


def test_once_is_as_it_was():
    positions = np.arange(NUM, dtype=np.int64)
    for found, expected in zip(rows(ONCE), Draw(NUM, 5, True).rows(4, positions), strict=True):
        assert np.array_equal(found, expected)


def test_any_part_of_an_epoch_is_the_same():
    whole = rows(Repeats(3, 4), NUM + 20)
    draw = Draw(NUM, 5, True, repeats=Repeats(3, 4))
    for first, end in ((0, 7), (7, 8), (500, 531), (NUM - 5, NUM + 20)):
        part = draw.rows(4, np.arange(first, end, dtype=np.int64))
        assert part[0].tolist() == whole[0][first:end].tolist()
        assert part[1].tolist() == whole[1][first:end].tolist()
    assert (whole[0][NUM:] == -1).all()


def test_balanced_draws_are_repeated_too():
    chosen = np.arange(100, dtype=np.int64)
    offsets = np.array([0, 10, 100], np.int64)
    draw = Draw(100, 5, True, chosen, offsets, Repeats(2, 1))
    ids, epochs = draw.rows(0, np.arange(100, dtype=np.int64))
    assert (ids[::2] == ids[1::2]).all()
    assert (epochs[::2] != epochs[1::2]).all()
    assert abs((ids < 10).mean() - 0.5) <= 0.02


@pytest.mark.parametrize(
    ("asked", "world", "expected"),
    [
        (1, 1, ONCE),
        (3, 1, Repeats(3, 1)),
        (3, 4, Repeats(3, 256)),
        ("3x32", 4, Repeats(3, 32)),
        ("1x9", 1, ONCE),
    ],
)
def test_the_argument_is_read(asked, world, expected):
    assert read_repeats(asked, 256, world) == expected


@pytest.mark.parametrize("asked", [0, 65, True, 2.0, "3", "0x1", "3x0", "65x1", None, "3x99999999"])
def test_another_argument_is_refused(asked):
    with pytest.raises(augd.OptionError, match=r'repeats: expected a number in 1\.\.64 or "COUNT'):
        read_repeats(asked, 256, 1)


def test_content_names_repeats_and_nothing_else_changes():
    common = {
        "dataset_digest": "d", "recipe": {}, "seed": 0, "shuffle": True, "policy": {},
        "environment": {},
    }  # fmt: skip
    once = content_of(**common)
    assert once == content_of(**common, repeats=ONCE)
    assert "repeats" not in once.fields
    assert content_of(**common, repeats=Repeats(3, 256)).fields["repeats"] == '"3x256"'
