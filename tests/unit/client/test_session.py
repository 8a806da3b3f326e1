"""The client's state machine: what it drops, what it refuses, what it grants."""

from __future__ import annotations

import pytest

from augd.client.session import Attach, BatchesLost, ClientSession, Deliver, PassEnded
from augd.errors import ConnectionLost, DatasetError, ProtocolError, SampleFailed
from augd.protocol import messages as msg
from augd.protocol.slot_layout import slot_layout

SPEC = msg.Spec("d", {"ops": []}, msg.Layout(4), prefetch=2)
ARRAYS, SLOT_BYTES = slot_layout(4, 2, 2)


def opened(opening: int = 1) -> msg.Opened:
    return msg.Opened(7, opening, 8, "c" * 32, {}, "d", 10, ARRAYS, SLOT_BYTES, 3)


def batch(sequence: int, slot: int = 0, *, opening: int = 1, rows: int = 4) -> msg.BatchMessage:
    return msg.BatchMessage(7, opening, sequence, 0, sequence, 4 * sequence, rows, slot, 0)


def open_reader() -> ClientSession:
    reader = ClientSession(SPEC, "n")
    assert reader.start("test") == [msg.Hello("n", "test", dataset=SPEC.dataset)]
    assert reader.handle(msg.Welcome("n", "i", 7, "/a", "t")) == [Attach("/a", 7, "t")]
    assert reader.attached() == [msg.Open(7, 1, SPEC, credit=3)]
    assert reader.handle(opened()) == []
    return reader


def test_the_way_to_an_open_stream() -> None:
    assert open_reader().state == "open"


def test_another_nonce_is_somebody_elses_welcome() -> None:
    reader = ClientSession(SPEC, "n")
    reader.start("")
    assert reader.handle(msg.Welcome("m", "i", 7, "/a", "t")) == []
    assert reader.state == "greeting"


def test_a_seek_before_open_changes_the_first_target() -> None:
    reader = ClientSession(SPEC, "n")
    reader.start("")
    assert reader.seek(3, 8) == []
    reader.handle(msg.Welcome("n", "i", 7, "/a", "t"))
    assert reader.attached() == [msg.Open(7, 1, SPEC, epoch=3, position=8, credit=3)]


def test_a_release_grants_one_more_and_only_once() -> None:
    reader = open_reader()
    assert reader.handle(batch(0)) == [Deliver(batch(0))]
    assert reader.release(0, 0) == [msg.Release(7, 0, 0), msg.Flow(7, 1, 4)]
    assert reader.release(0, 0) == []
    assert reader.release(1, 0) == []


def test_a_slot_of_an_older_opening_grants_nothing() -> None:
    reader = open_reader()
    reader.handle(batch(0, slot=1))
    assert reader.seek(2, 0) == [msg.Open(7, 2, SPEC, epoch=2, credit=3, held=((1, 0),))]
    assert reader.release(1, 0) == [msg.Release(7, 1, 0)]


def test_what_comes_under_another_opening_or_session_is_dropped() -> None:
    reader = open_reader()
    reader.seek(0, 0)
    assert reader.handle(opened(1)) == []
    assert reader.state == "opening"
    assert reader.handle(batch(0)) == []
    reader.handle(opened(2))
    assert reader.handle(msg.EpochEnd(7, 1, 0, 3, 10)) == []
    assert reader.handle(msg.EpochEnd(9, 2, 0, 3, 10)) == []
    assert reader.handle(batch(0, opening=2)) == [Deliver(batch(0, opening=2))]


def test_a_doubled_batch_is_dropped_and_a_lost_one_is_an_error() -> None:
    reader = open_reader()
    reader.handle(batch(0))
    assert reader.handle(batch(0)) == []
    with pytest.raises(BatchesLost, match="BATCH 2 of epoch 0 arrived, expected 1: batches were"):
        reader.handle(batch(2, slot=1))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (batch(0, slot=3), "BATCH names slot 3 with 4 rows"),
        (batch(0, rows=5), "BATCH names slot 0 with 5 rows"),
    ],
)
def test_a_batch_that_points_outside_is_refused(message: msg.BatchMessage, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        open_reader().handle(message)


def test_a_batch_in_a_held_slot_is_refused() -> None:
    reader = open_reader()
    reader.handle(batch(0))
    with pytest.raises(ProtocolError, match="BATCH names slot 0, which is still held"):
        reader.handle(batch(1))


def test_a_batch_before_opened_is_refused() -> None:
    reader = open_reader()
    reader.seek(0, 0)
    with pytest.raises(BatchesLost, match="BATCH 0 arrived before OPENED, which was lost"):
        reader.handle(batch(0, opening=2))


def test_opened_with_arrays_outside_the_slot_is_refused() -> None:
    reader = open_reader()
    reader.seek(0, 0)
    lie = msg.Opened(7, 2, 8, "c" * 32, {}, "d", 10, ARRAYS, 64, 3)
    with pytest.raises(ProtocolError, match="of a slot of 64 bytes"):
        reader.handle(lie)


def test_an_epoch_that_ends_with_other_counts_is_an_error() -> None:
    reader = open_reader()
    for sequence in range(3):
        reader.handle(batch(sequence, slot=sequence))
    good = msg.EpochEnd(7, 1, 0, 3, 10)
    assert reader.handle(good) == [PassEnded(good)]
    with pytest.raises(ProtocolError) as caught:
        reader.handle(msg.EpochEnd(7, 1, 1, 3, 10))
    assert str(caught.value) == (
        "epoch 1 ended after 0 batches with 0 samples here, the daemon sent 3 with 10"
    )


def test_errors_raise_what_they_name_and_stale_ones_nothing() -> None:
    reader = open_reader()
    assert reader.handle(msg.Error("SAMPLE_FAILED", "old", 7, 9)) == []
    assert reader.handle(msg.Error("SAMPLE_FAILED", "not mine", 6, 1)) == []
    with pytest.raises(SampleFailed, match="bad sample 3"):
        reader.handle(msg.Error("SAMPLE_FAILED", "bad sample 3", 7, 1))
    with pytest.raises(DatasetError, match="nobody"):
        reader.handle(msg.Error("UNKNOWN_DATASET", "nobody"))


def test_notices_are_kept_and_stop_nothing() -> None:
    reader = open_reader()
    notice = msg.Notice("slow", "you are slow")
    assert reader.handle(notice) == []
    assert reader.notices == ["you are slow"]


def test_close_says_bye_once_and_nothing_before_a_session() -> None:
    reader = open_reader()
    assert reader.close() == [msg.Bye(7)]
    assert reader.close() == []
    assert ClientSession(SPEC, "n").close() == []


def test_the_end_of_an_epoch_counts_once_and_is_missed() -> None:
    reader = open_reader()
    for sequence in range(3):
        reader.handle(batch(sequence, slot=sequence))
    end = msg.EpochEnd(7, 1, 0, 3, 10)
    assert reader.handle(end) == [PassEnded(end)]
    assert reader.handle(end) == []
    for slot in range(3):
        reader.release(slot, 0)
    reader.handle(msg.BatchMessage(7, 1, 3, 1, 0, 0, 4, 0, 1))
    with pytest.raises(BatchesLost) as caught:
        reader.handle(msg.BatchMessage(7, 1, 4, 2, 0, 0, 4, 1, 1))
    assert str(caught.value) == (
        "BATCH 4 of epoch 2 arrived before the EPOCH_END of 1, which was lost on the way"
    )


def test_the_end_of_a_session_is_heard_by_a_client_that_seeks_meanwhile() -> None:
    reader = open_reader()
    reader.seek(3, 8)
    assert reader.handle(msg.Error("SAMPLE_FAILED", "of the place before", 7, 1)) == []
    with pytest.raises(ConnectionLost, match="the daemon ended"):
        reader.handle(msg.Error("DRAINING", "the daemon ended", 7))
