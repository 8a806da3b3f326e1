"""What a client says while it waits for a lost daemon, and when."""

from __future__ import annotations

import logging

import pytest

from augd.client.wait_notice import WaitNotice

WHY = "The daemon at ipc:///d ended."


def test_nothing_is_said_of_a_short_loss(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    waiting = WaitNotice(WHY, "it goes on", 60.0, lambda: now[0])
    assert waiting.log_if_due() == 2.0
    now[0] = 1.9
    assert waiting.log_if_due() == pytest.approx(0.1)
    waiting.end()
    assert caplog.records == []


def test_a_line_after_two_seconds_and_then_every_ten(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    waiting = WaitNotice(WHY, "the stream goes on at position 8 of epoch 1", 30.0, lambda: now[0])
    said = []
    while now[0] < 30:
        now[0] += 0.5
        before = len(caplog.records)
        waiting.log_if_due()
        said += [now[0]] * (len(caplog.records) - before)
    assert said == [2.0, 12.0, 22.0]
    assert caplog.messages[1] == (
        "The daemon at ipc:///d ended. Waiting for a daemon at that address for 12 s now, and 18 s "
        "more: then the stream goes on at position 8 of epoch 1"
    )
    waiting.end()
    assert caplog.messages[3:] == [
        "A daemon is back after 30 s: the stream goes on at position 8 of epoch 1"
    ]
    assert {one.levelno for one in caplog.records} == {logging.WARNING}


def test_a_poll_that_overshot_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    waiting = WaitNotice(WHY, "it goes on", 600.0, lambda: now[0])
    now[0] = 100.0
    assert waiting.log_if_due() == pytest.approx(2.0)
    assert len(caplog.records) == 1
    assert waiting.log_if_due() == pytest.approx(2.0)
    assert len(caplog.records) == 1
