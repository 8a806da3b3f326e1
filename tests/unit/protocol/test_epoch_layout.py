"""How an epoch is cut into batches and shares."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from augd.protocol import epoch_layout
from augd.protocol.messages import Layout

SIZES = st.integers(1, 300)


def walk(layout: Layout, num_samples: int) -> list[int]:
    step = epoch_layout.global_batch(layout)
    return [number * step for number in range(epoch_layout.batches_left(layout, num_samples))]


def test_a_short_last_batch() -> None:
    layout = Layout(4)
    assert [epoch_layout.batch_rows(layout, 10, position) for position in walk(layout, 10)] == [
        4,
        4,
        2,
    ]
    assert epoch_layout.batches_left(Layout(4, drop_last=True), 10) == 2


def test_ranks_pad_the_tail() -> None:
    layout = Layout(3, rank=1, world=2)
    assert [epoch_layout.batch_rows(layout, 10, position) for position in (0, 6)] == [3, 3]
    assert [epoch_layout.real_rows(layout, 10, position) for position in (0, 6)] == [3, 1]


def test_positions_beyond_the_end() -> None:
    assert epoch_layout.batches_left(Layout(4), 10, 10) == 0
    assert epoch_layout.batches_left(Layout(4), 10, 2**62) == 0
    assert epoch_layout.real_rows(Layout(4), 10, 12) == 0
    assert epoch_layout.samples_of_rank(Layout(4), 10, 999) == 0


def test_numbers_after_an_elastic_resume_go_on_from_the_next_whole_one() -> None:
    assert [epoch_layout.batch_number(Layout(4), position) for position in (0, 4, 6, 8)] == [
        0,
        1,
        2,
        2,
    ]


@given(SIZES, st.integers(1, 40), st.integers(1, 5), st.booleans())
def test_all_ranks_together_have_every_position_once(
    num_samples: int, batch_size: int, world: int, drop_last: bool
) -> None:
    seen: list[int] = []
    lengths = set()
    for rank in range(world):
        layout = Layout(batch_size, rank, world, drop_last)
        positions = walk(layout, num_samples)
        mine: list[int] = []
        for position in positions:
            first = position + rank * batch_size
            real = epoch_layout.real_rows(layout, num_samples, position)
            assert real <= epoch_layout.batch_rows(layout, num_samples, position) <= batch_size
            mine += range(first, first + real)
        assert epoch_layout.samples_of_rank(layout, num_samples, 0) == len(mine)
        lengths.add(len(positions))
        seen += mine
    assert len(lengths) == 1
    whole = num_samples // (batch_size * world) * batch_size * world
    assert sorted(seen) == list(range(whole if drop_last else num_samples))


@given(SIZES, st.integers(1, 40), st.integers(1, 5), st.booleans(), st.data())
def test_what_is_left_is_the_whole_without_what_was(
    num_samples: int, batch_size: int, world: int, drop_last: bool, data: st.DataObject
) -> None:
    layout = Layout(batch_size, data.draw(st.integers(0, world - 1)), world, drop_last)
    total = epoch_layout.batches_left(layout, num_samples)
    number = data.draw(st.integers(0, total))
    position = number * epoch_layout.global_batch(layout)
    assert epoch_layout.batches_left(layout, num_samples, position) == total - number
    before = sum(
        epoch_layout.real_rows(layout, num_samples, p) for p in walk(layout, num_samples)[:number]
    )
    whole = epoch_layout.samples_of_rank(layout, num_samples, 0)
    assert epoch_layout.samples_of_rank(layout, num_samples, position) == whole - before
