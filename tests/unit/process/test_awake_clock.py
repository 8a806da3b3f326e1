"""Time in which the whole process stood still is no time of anybody's deadline."""

from __future__ import annotations

import math

import pytest

from augd.process.awake_clock import LATE_S, SLICE_S, TURN_S, Awake


class Machine:
    """A clock that is turned, and waits that may take longer than they were told."""

    def __init__(self) -> None:
        self.time = 100.0
        self.backoff: list[float] = []
        self.slices: list[float | None] = []

    def clock(self) -> float:
        return self.time

    def poll(self, left_s: float | None) -> list[str]:
        """Wait, and be paused beyond that if there is a pause left."""
        self.slices.append(left_s)
        self.time += (left_s or 0.0) + (self.backoff.pop(0) if self.backoff else 0.0)
        return []


@pytest.mark.parametrize("pause_s", [3.0, 12.0, 90.0])
def test_a_pause_is_not_counted(pause_s: float) -> None:
    machine = Machine()
    machine.backoff = [0.0, pause_s]
    awake = Awake(machine.clock)
    began, raw = awake.now(), machine.time
    assert awake.wait(machine.poll, 10.0) == []
    assert awake.now() - began == pytest.approx(10.0)
    assert machine.time - raw == pytest.approx(10.0 + pause_s)


def test_a_pause_costs_a_deadline_a_slice_at_most() -> None:
    """The poll was told its seconds before the pause began, and may return at once after it."""
    machine = Machine()
    awake = Awake(machine.clock)
    began = awake.now()

    def stopped(left_s: float | None) -> list[str]:
        machine.time += 90.0
        return ["event"]

    assert awake.wait(stopped, 30.0) == ["event"]
    assert awake.now() - began == pytest.approx(SLICE_S)


def test_a_busy_machine_is_late_and_that_counts() -> None:
    machine = Machine()
    machine.backoff = [LATE_S * 0.9] * 100
    awake = Awake(machine.clock)
    awake.wait(machine.poll, 3.0)
    assert machine.time - 100.0 < 3.0 + SLICE_S + LATE_S
    assert awake.now() == pytest.approx(machine.time)


def test_one_that_is_stopped_again_and_again_meets_its_deadlines_all_the_same() -> None:
    machine = Machine()
    machine.backoff = [5.0] * 1000
    awake = Awake(machine.clock)
    awake.wait(machine.poll, 10.0)
    assert len(machine.slices) == 10.0 / SLICE_S


def test_what_is_found_ends_the_wait_and_no_time_is_lost() -> None:
    machine = Machine()
    awake = Awake(machine.clock)
    assert awake.wait(lambda left_s: ["event"], 10.0) == ["event"]
    assert awake.now() == machine.time


@pytest.mark.parametrize("timeout_s", [None, math.inf])
def test_a_wait_without_end_is_one_poll_that_counts(timeout_s: float | None) -> None:
    machine = Machine()
    awake = Awake(machine.clock, turn_s=TURN_S)
    machine.backoff = [500.0]
    awake.wait(machine.poll, timeout_s)
    assert machine.slices == [None]
    assert awake.now() == machine.time


def test_nothing_to_wait_for_is_one_look() -> None:
    machine = Machine()
    Awake(machine.clock).wait(machine.poll, 0.0)
    assert machine.slices == [0.0]


def test_a_loop_that_stood_still_between_two_waits_counts_a_turn() -> None:
    machine = Machine()
    awake = Awake(machine.clock, turn_s=TURN_S)
    began = awake.now()
    machine.time += 60.0
    assert awake.now() - began == pytest.approx(TURN_S)
    machine.time += 1.0
    assert awake.now() - began == pytest.approx(TURN_S + 1.0)


def test_it_never_goes_back() -> None:
    machine = Machine()
    awake = Awake(machine.clock, turn_s=TURN_S)
    seen = [awake.now()]
    for number in range(40):
        machine.backoff = [float(number % 7)]
        awake.wait(machine.poll, 0.4)
        machine.time += number % 5
        seen.append(awake.now())
    assert seen == sorted(seen)
