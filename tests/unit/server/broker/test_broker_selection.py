"""The broker and selections: samples are chosen before a stream stands, and let go with it."""

from __future__ import annotations

import pytest

from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts
from augd.server.daemon.broker.selection import is_whole, policy_of, settled

RECIPE = {"ops": [{"op": "center_crop", "size": 8}]}
ASKED = msg.Selection(split="val", classes=("b", "a"))
clause = pytest.mark.clause


class Table:
    """A broker with one ready producer; the test answers the actions itself."""

    def __init__(self, num_targets: int = 0, *, has_splits: bool = False) -> None:
        facts = DatasetFacts("0" * 32, "/d", 1000, (8, 8), num_targets, has_splits)
        self.broker = Broker("i", "/a", {"d": facts}, 1)
        self.feed(ev.Tick())
        self.feed(ev.FromLocalProducer(0, msg.Ready(1, {})))

    def feed(self, event: ev.Event) -> list[ev.Action]:
        return self.broker.handle(event, 0.0)

    def attach(self, peer: bytes = b"0") -> int:
        send = self.feed(ev.FromPeer(peer, msg.Hello("n")))[-1]
        assert isinstance(send, ev.SendToClient) and isinstance(send.message, msg.Welcome)
        self.feed(ev.PeerAttached(send.message.session, send.message.token))
        return send.message.session

    def open(self, session: int, selection: msg.Selection = ASKED, **changes: int):
        layout = msg.Layout(changes.get("batch_size", 32), drop_last=True)
        spec = msg.Spec("d", RECIPE, layout, prefetch=1, selection=selection)
        opening = changes.get("opening", 1)
        request = msg.Open(session, opening, spec, changes.get("epoch", 0), credit=2)
        return self.feed(ev.FromPeer(b"0", request))

    def choose(self, session: int, chosen: msg.Chosen, **options: msg.Selection):
        """Open with a selection and answer it; returns the stream's number and what follows."""
        (select,) = self.open(session, **options)
        assert isinstance(select, ev.SelectSamples)
        return select.stream, self.feed(ev.SamplesSelected(select.stream, chosen))


def of_kind(actions: list[ev.Action], kind: type) -> list:
    found = [
        action.message
        for action in actions
        if isinstance(action, ev.SendToClient | ev.SendToProducer)
    ]
    return [one for one in (*actions, *found) if isinstance(one, kind)]


def test_the_whole_data_set_needs_no_choosing() -> None:
    table = Table()
    (arena,) = table.open(table.attach(), msg.Selection(val_fraction=0.5))
    assert isinstance(arena, ev.MakeArena)


@clause("P-38")
def test_the_stream_has_what_was_chosen() -> None:
    table = Table()
    session = table.attach()
    number, actions = table.choose(session, msg.Chosen(100, 0, 2))
    assert actions == [ev.MakeArena(number, actions[0].size_bytes)]
    actions = table.feed(ev.ArenaMade(number))
    (use,) = of_kind(actions, msg.StreamMessage)
    assert use.chosen == msg.Chosen(100, 0, 2)
    (send,) = [a for a in actions if isinstance(a, ev.SendToClient)]
    assert isinstance(send.message, msg.Opened)
    assert send.message.num_positions == 100 and send.classes == ("b", "a")
    leases = of_kind(actions, msg.Lease)
    assert [lease.position for lease in leases] == [0, 32]


def test_a_producer_that_comes_later_is_told_of_the_choice() -> None:
    table = Table()
    number, _ = table.choose(table.attach(), msg.Chosen(100, 2, 2))
    table.feed(ev.ArenaMade(number))
    table.feed(ev.Reaped(0, "SIGKILL"))
    (use,) = of_kind(table.feed(ev.FromLocalProducer(0, msg.Ready(2, {}))), msg.StreamMessage)
    assert use.chosen == msg.Chosen(100, 2, 2)


def test_labels_of_several_classes_are_as_wide_as_what_was_picked() -> None:
    for selection, picked, width in ((ASKED, 2, 2), (msg.Selection(limit=5), 0, 9)):
        table = Table(num_targets=9)
        number, _ = table.choose(table.attach(), msg.Chosen(100, 0, picked), selection=selection)
        (use,) = of_kind(table.feed(ev.ArenaMade(number)), msg.StreamMessage)
        labels = next(array for array in use.arrays if array.name == "labels")
        assert (labels.dtype, labels.shape) == ("float32", (32, width))


@clause("P-38")
def test_a_selection_that_fails_is_refused_and_another_one_may_follow() -> None:
    table = Table()
    session = table.attach()
    (select,) = table.open(session)
    (send,) = table.feed(ev.SelectionFailed(select.stream, "BAD_OPTION", "classes: no"))
    assert send.message == msg.Error("BAD_OPTION", "classes: no", session, 1)
    (again,) = table.open(session, msg.Selection(limit=3), opening=2)
    assert isinstance(again, ev.SelectSamples) and again.stream != select.stream


def test_too_few_chosen_for_a_batch() -> None:
    table = Table()
    number, actions = table.choose(table.attach(), msg.Chosen(31))
    assert ev.DropArena(number) in actions
    (error,) = of_kind(actions, msg.Error)
    assert error.text.startswith("drop_last leaves no batch: 31 samples, 32 per global batch")


def test_a_choice_for_a_client_that_left_is_dropped() -> None:
    table = Table()
    session = table.attach()
    (select,) = table.open(session)
    table.feed(ev.PeerGone(session))
    assert table.feed(ev.SamplesSelected(select.stream, msg.Chosen(50))) == [
        ev.DropArena(select.stream)
    ]
    assert table.feed(ev.SelectionFailed(select.stream, "BAD_OPTION", "x")) == []


def test_the_last_open_counts_while_samples_are_chosen() -> None:
    table = Table()
    session = table.attach()
    (select,) = table.open(session)
    assert table.open(session, opening=2, epoch=7) == []
    (error,) = of_kind(table.open(session, msg.Selection(limit=1), opening=3), msg.Error)
    assert error.text.startswith("a stream keeps its spec")
    table.feed(ev.SamplesSelected(select.stream, msg.Chosen(100)))
    actions = table.feed(ev.ArenaMade(select.stream))
    (opened,) = of_kind(actions, msg.Opened)
    assert opened.opening == 2
    assert {lease.epoch for lease in of_kind(actions, msg.Lease)} == {7}


def test_the_end_of_a_session_lets_its_choice_go() -> None:
    table = Table()
    session = table.attach()
    number, _ = table.choose(session, msg.Chosen(100))
    table.feed(ev.ArenaMade(number))
    assert ev.DropArena(number) in table.feed(ev.PeerGone(session))


def test_what_decides_nothing_is_reset() -> None:
    hashed = msg.Selection(split="val", val_fraction=0.3)
    assert settled(hashed, has_splits=False) == hashed
    assert settled(hashed, has_splits=True) == msg.Selection(split="val")
    assert settled(msg.Selection(val_fraction=0.3), has_splits=False) == msg.Selection()
    assert is_whole(msg.Selection(val_fraction=0.3)) and not is_whole(msg.Selection(limit=1))


def test_only_a_selection_adds_to_the_content() -> None:
    layout = msg.Layout(4)
    whole = msg.Spec("d", RECIPE, layout)
    assert policy_of(whole, has_splits=False) == {"bad": "mask"}
    chosen = msg.Spec("d", RECIPE, layout, selection=msg.Selection(limit=3))
    selection = policy_of(chosen, has_splits=False)["selection"]
    assert selection["limit"] == 3 and "scheme" in selection and "split" not in selection
