"""The checker's comparer notices what it is there for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from augd.protocol.row_digest import ids_digest, rows_digest
from tests.fault.row_comparison import Chain, Layout, Mismatch, Reference, Tally

NUM, SIDE = 23, 4
ORDER = np.random.default_rng(5).permutation(NUM)


def batch_of(position: int, size: int, *, epoch: int = 0, first: int | None = None) -> Any:
    """Make a batch as a stream would hand it out; sample 7 is a bad one."""
    ids = ORDER[position if first is None else first :][:size].astype(np.int64)
    images = np.full((len(ids), SIDE, SIDE, 3), 10, np.uint8) * ids[:, None, None, None]
    images = images.astype(np.uint8)
    labels = np.where(ids == 7, -100, ids % 3)
    images[ids == 7] = 0
    return SimpleNamespace(
        epoch=epoch, position=position, ids=ids, labels=labels, valid=ids != 7, images=images
    )


def batches(size: int, begin: int = 0) -> list[Any]:
    return [batch_of(at, size) for at in range(begin, NUM, size)]


@pytest.fixture
def rows(tmp_path):
    made = Reference()
    made.add(3, 0, batches(8))
    made.save(tmp_path / "reference")
    return Reference.load(tmp_path / "reference").rows(3, 0)


def receipt_of(taken: list[Any], *, is_complete: bool = True) -> dict[str, Any]:
    """Add up as augd does."""
    rows = sum(rows_digest(one.ids, one.labels, one.images) for one in taken)
    return {
        "epoch": 0,
        "batches": len(taken),
        "samples": sum(len(one.ids) for one in taken),
        "num_bad": sum(int((~one.valid).sum()) for one in taken),
        "ids": f"{sum(ids_digest(one.position, one.ids) for one in taken) % 2**64:016x}",
        "bytes": f"{rows % 2**128:032x}",
        "files_changed": False,
        "is_complete": is_complete,
    }


def follow(chain: Chain, taken: list[Any]) -> Chain:
    for one in taken:
        chain.take(one)
    return chain


@pytest.mark.parametrize("size", [1, 5, 8, 40])
def test_what_is_right_passes(rows, size):
    taken = batches(size)
    follow(Chain(rows, 0, Layout(size)), taken).end(receipt_of(taken))


def test_a_chain_goes_on_with_another_batch_size(rows):
    head, tail = batches(8)[:1], batches(5, 8)
    first = follow(Chain(rows, 0, Layout(8)), head)
    kept = Tally(**first.tally.as_data())
    second = follow(Chain(rows, 0, Layout(5), first.position, kept), tail)
    second.end(receipt_of([*head, *tail]))
    alone = follow(Chain(rows, 0, Layout(5), 8), tail)
    alone.end(receipt_of(tail, is_complete=False))
    with pytest.raises(Mismatch, match="in a part only, its receipt says is_complete True"):
        alone.end(receipt_of(tail))


def test_ranks_have_their_share_and_padding(rows):
    for rank in range(2):
        chain = Chain(rows, 0, Layout(5, 2, rank))
        while not chain.is_over():
            one = batch_of(chain.position, 5, first=chain.position + 5 * rank)
            short = 5 - len(one.ids)
            one.ids = np.append(one.ids, np.full(short, -1))
            one.valid = np.append(one.valid, np.zeros(short, bool))
            chain.take(one)
        assert chain.tally.samples == (13, 10)[rank]
    chain = Chain(rows, 0, Layout(5, 2, 1), 20)
    with pytest.raises(Mismatch, match="row 0: expected padding, got 4"):
        chain.take(SimpleNamespace(**{**vars(batch_of(20, 5)), "ids": [4] * 5, "valid": [1] * 5}))


def change(name: str, value: Any) -> Any:
    def act(one: Any) -> None:
        getattr(one, name)[2] = value

    return act


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (change("labels", 1000), "row 2: sample .* differs"),
        (change("valid", False), "row 2: sample .* differs"),
        (lambda one: one.images.__setitem__((2, 3, 3, 2), one.images[2, 3, 3, 2] ^ 1), "differs"),
        (lambda one: one.images.__setitem__(2, one.images[1]), "row 2: sample .* differs"),
        (change("ids", -1), "row 2: expected sample .*, got -1"),
        (lambda one: one.ids.__setitem__(2, one.ids[1]), "row 2: expected sample"),
        (lambda one: vars(one).update(ids=one.ids[:-1]), "expected 8 rows, got 7"),
        (lambda one: vars(one).update(ids=np.append(one.ids, 1)), "expected 8 rows, got 9"),
        (lambda one: vars(one).update(position=9), "position 8: got epoch 0, position 9"),
        (lambda one: vars(one).update(epoch=1), "position 8: got epoch 1, position 8"),
    ],
)
def test_an_altered_a_missing_and_a_doubled_sample_are_noticed(rows, harm, says):
    taken = batches(8)
    harm(taken[1])
    with pytest.raises(Mismatch, match=says):
        follow(Chain(rows, 0, Layout(8)), taken)


def test_a_missing_and_a_doubled_batch_are_noticed(rows):
    first, second, third = batches(8)
    with pytest.raises(Mismatch, match="position 8: got epoch 0, position 16"):
        follow(Chain(rows, 0, Layout(8)), [first, third])
    with pytest.raises(Mismatch, match="position 8: got epoch 0, position 0"):
        follow(Chain(rows, 0, Layout(8)), [first, first])
    with pytest.raises(Mismatch, match="the epoch was over, and a batch came at 16"):
        follow(Chain(rows, 0, Layout(8)), [first, second, third, third])
    with pytest.raises(Mismatch, match="ended at position 16 of 23"):
        follow(Chain(rows, 0, Layout(8)), [first, second]).end(receipt_of([first, second]))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("is_complete", False, "counted from its start, its receipt says is_complete False"),
        ("samples", 22, "samples of its receipt: expected 23, got 22"),
        ("num_bad", 0, "num_bad of its receipt: expected 1, got 0"),
        ("ids", "0" * 16, "ids of its receipt"),
        ("bytes", "0" * 32, "bytes of its receipt"),
        ("epoch", 1, "its receipt is"),
        ("files_changed", True, "its receipt is"),
    ],
)
def test_a_wrong_receipt_is_noticed(rows, name, value, says):
    taken = batches(8)
    chain = follow(Chain(rows, 0, Layout(8)), taken)
    with pytest.raises(Mismatch, match=says):
        chain.end({**receipt_of(taken), name: value})


def test_a_reference_that_is_none_is_refused():
    first, second, third = batches(8)
    with pytest.raises(Mismatch, match="a batch at 16, after 8 rows"):
        Reference().add(0, 0, [first, third])
    second.ids[0] = first.ids[0]
    with pytest.raises(Mismatch, match="has not each of 23 samples once"):
        Reference().add(0, 0, [first, second, third])
