"""The schedule of copies and releases, on a fake device whose copies end when told."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

import pytest

import augd
from trainer.data.copy_schedule import NUM_BUFFERS, CopySchedule, Feed

SLOTS = 4


class FakeEvent:
    def __init__(self) -> None:
        self.is_done = False
        self.num_waits = 0

    def query(self) -> bool:
        return self.is_done

    def synchronize(self) -> None:
        self.num_waits += 1
        self.is_done = True


class FakeBatch:
    """A slot that must not be released while its copy runs."""

    def __init__(self, epoch: int, number: int, stream: FakeStream) -> None:
        self.name = (epoch, number)
        self.event: FakeEvent | None = None
        self.is_released = False
        self._stream = stream

    def release(self) -> None:
        assert not self.is_released, "released twice"
        assert self.event is not None and self.event.is_done, "released while the copy runs"
        self.is_released = True
        self._stream.num_held -= 1


class FakeStream:
    """`augd.Stream` as the feed sees it: `num_here` batches can be had without waiting."""

    def __init__(self, num_batches: int = 3, num_here: int = 99) -> None:
        self.num_batches = num_batches
        self.num_here = num_here
        self.num_held = 0
        self.is_dead = False
        self.seeks: list[int] = []
        self.batches: list[FakeBatch] = []
        self.in_flight_at_a_wait: list[int] = []
        self._cursor: tuple[int, int] = (0, 0)

    def is_ready(self) -> bool:
        return self.num_here > 0

    def epoch(self, epoch: int) -> Iterator[FakeBatch]:
        if epoch < 0:
            raise augd.OptionError("epoch")
        return self._pass(epoch)

    def _pass(self, epoch: int) -> Iterator[FakeBatch]:
        if self.is_dead:
            raise augd.ConnectError("the daemon ended")
        if self._cursor != (epoch, 0):
            self.seeks.append(epoch)
        for number in range(self.num_batches):
            self._cursor = (epoch, number + 1)
            if self.num_here <= 0:
                self.in_flight_at_a_wait.append(self.num_held)
            assert self.num_held < SLOTS, "BatchesHeld"
            self.num_here -= 1
            self.num_held += 1
            batch = FakeBatch(epoch, number, self)
            self.batches.append(batch)
            yield batch
        self._cursor = (epoch + 1, 0)


class FakeLane:
    """Remembers the order of things, and that no buffer is filled before it was read."""

    def __init__(self) -> None:
        self.log: list[tuple[str, tuple[int, int]]] = []
        self.events: deque[FakeEvent] = deque()
        self.fails_on: tuple[int, int] | None = None
        self._filled: dict[int, tuple[int, int]] = {}

    def copy(self, batch: FakeBatch, buffer: int) -> tuple[tuple[int, int], FakeEvent]:
        if batch.name == self.fails_on:
            raise MemoryError
        assert 0 <= buffer < NUM_BUFFERS
        self._filled[buffer] = batch.name
        batch.event = FakeEvent()
        self.events.append(batch.event)
        self.log.append(("copy", batch.name))
        return batch.name, batch.event

    def finish(self, copied: tuple[int, int], buffer: int) -> tuple[int, int]:
        assert self._filled.pop(buffer) == copied, "filled again before it was handed out"
        self.log.append(("finish", copied))
        return copied


def make(stream: FakeStream, max_in_flight: int = SLOTS - 1):
    copier = FakeLane()
    schedule = CopySchedule(copier, max_in_flight)
    return copier, schedule, Feed(stream, schedule)


def test_the_next_copy_is_issued_before_a_batch_is_handed_out():
    copier, _, feed = make(FakeStream())
    passing = feed.epoch(0)
    assert next(passing) == (0, 0)
    assert copier.log == [("copy", (0, 0)), ("finish", (0, 0)), ("copy", (0, 1))]


def test_a_batch_is_not_delayed_by_one_that_is_not_here():
    stream = FakeStream(num_here=1)
    copier, _, feed = make(stream)
    passing = feed.epoch(0)
    assert next(passing) == (0, 0)
    assert copier.log == [("copy", (0, 0)), ("finish", (0, 0))]
    assert stream.in_flight_at_a_wait == []
    assert next(passing) == (0, 1)


def test_slots_go_back_when_their_copies_are_done_and_not_before():
    stream = FakeStream(num_batches=5)
    copier, schedule, feed = make(stream)
    passing = feed.epoch(0)
    next(passing)
    assert schedule.num_in_flight == 2
    copier.events[0].is_done = True
    next(passing)
    assert [batch.is_released for batch in stream.batches] == [True, False, False]
    copier.events[2].is_done = True  # out of turn: the copies of one stream happen in order
    next(passing)
    assert [batch.is_released for batch in stream.batches] == [True, False, False, False]
    assert all(event.num_waits == 0 for event in copier.events)


def test_when_slots_run_out_the_oldest_copy_is_waited_for():
    stream = FakeStream(num_batches=9)
    copier, schedule, feed = make(stream, max_in_flight=2)
    passing = feed.epoch(0)
    next(passing)  # 0 and, ahead, 1 are in flight
    next(passing)  # 1 was staged; there is no room to look ahead
    assert schedule.num_in_flight == 2 and [e.num_waits for e in copier.events] == [0, 0]
    next(passing)  # 2 needs a slot
    assert [event.num_waits for event in copier.events] == [1, 0, 0]
    assert stream.batches[0].is_released and not stream.batches[1].is_released


def test_nothing_is_held_while_waiting_for_a_batch():
    stream = FakeStream(num_batches=4, num_here=2)
    copier, _, feed = make(stream)
    assert list(feed.epoch(0)) == [(0, number) for number in range(4)]
    assert stream.in_flight_at_a_wait == [0, 0]
    assert all(event.num_waits == 1 for event in list(copier.events)[:3])


def test_the_look_ahead_crosses_the_end_of_an_epoch():
    stream = FakeStream(num_batches=2)
    copier, _, feed = make(stream)
    assert list(feed.epoch(0)) == [(0, 0), (0, 1)]
    assert copier.log[-1] == ("copy", (1, 0))
    assert list(feed.epoch(1)) == [(1, 0), (1, 1)]
    assert stream.seeks == []
    assert [name for what, name in copier.log if what == "copy"].count((1, 0)) == 1


def test_an_end_that_is_here_without_the_next_batch():
    stream = FakeStream(num_batches=2, num_here=2)
    _, _, feed = make(stream)
    passing = feed.epoch(0)
    next(passing)
    stream.num_here = 1  # the end's message alone
    assert next(passing) == (0, 1)
    stream.num_here = 0
    assert next(passing, None) is None
    assert next(feed.epoch(1)) == (1, 0)
    assert stream.seeks == []


def test_another_epoch_than_the_next_drops_what_was_staged():
    stream = FakeStream(num_batches=2)
    _, schedule, feed = make(stream)
    assert list(feed.epoch(0)) == [(0, 0), (0, 1)]
    assert list(feed.epoch(0)) == [(0, 0), (0, 1)]
    assert stream.seeks == [0]
    feed.close()
    assert schedule.num_in_flight == 0
    assert all(batch.is_released for batch in stream.batches)


def test_a_pass_that_was_broken_off_begins_again():
    stream = FakeStream(num_batches=3)
    _, _, feed = make(stream)
    for name in feed.epoch(0):
        assert name == (0, 0)
        break
    assert list(feed.epoch(0)) == [(0, 0), (0, 1), (0, 2)]
    assert stream.seeks == [0]


def test_a_newer_pass_ends_an_older_one():
    _, _, feed = make(FakeStream())
    older = feed.epoch(0)
    next(older)
    next(feed.epoch(1))
    with pytest.raises(augd.StreamClosed, match="this pass over epoch 0 ended when a newer one"):
        next(older)


def test_a_bad_epoch_is_refused_at_once():
    _, _, feed = make(FakeStream())
    with pytest.raises(augd.OptionError):
        feed.epoch(-1)


def test_a_copy_that_fails_costs_no_buffer():
    stream = FakeStream(num_batches=4, num_here=0)
    copier, _, feed = make(stream)
    for _ in range(NUM_BUFFERS + 1):
        copier.fails_on = (0, 0)
        with pytest.raises(MemoryError):
            next(feed.epoch(0))
        stream.num_held = 0  # as when the batch was dropped
    copier.fails_on = None
    assert list(feed.epoch(0)) == [(0, number) for number in range(4)]


def test_a_failed_first_batch_is_no_empty_epoch():
    copier, _, feed = make(FakeStream())
    copier.fails_on = (0, 0)
    with pytest.raises(MemoryError):
        list(feed.epoch(0))
    copier.fails_on = None
    assert len(list(feed.epoch(0))) == 3


def test_an_error_at_an_epochs_start_is_no_empty_epoch():
    stream = FakeStream(num_here=0)
    _, _, feed = make(stream)
    assert len(list(feed.epoch(0))) == 3
    stream.is_dead = True
    with pytest.raises(augd.ConnectError):
        list(feed.epoch(1))
    stream.is_dead = False
    assert len(list(feed.epoch(1))) == 3


@pytest.mark.parametrize("seed", range(40))
def test_any_interleaving_gives_every_batch_once_in_order(seed):
    rng = random.Random(seed)
    stream = FakeStream(num_batches=rng.randint(1, 4), num_here=0)
    copier, schedule, feed = make(stream, max_in_flight=rng.randint(1, SLOTS - 1))
    for _ in range(12):
        epoch, length = rng.randint(0, 2), rng.randint(0, stream.num_batches)
        seen = []
        passing = feed.epoch(epoch)
        for _ in range(length):
            stream.num_here = rng.randint(0, 3)
            for event in list(copier.events)[: rng.randint(0, len(copier.events))]:
                event.is_done = True
            seen.append(next(passing))
            assert schedule.num_in_flight <= SLOTS - 1
        if length == stream.num_batches and rng.random() < 0.7:
            assert next(passing, None) is None
        assert seen == [(epoch, number) for number in range(length)]
    feed.close()
    assert stream.num_held == 0
