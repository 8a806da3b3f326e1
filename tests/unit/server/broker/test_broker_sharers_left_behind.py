"""The broker's sharers: who is left behind, and what he keeps that nobody hears of any more."""

from __future__ import annotations

from augd.client.session import ClientSession
from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from tests.unit.server.broker.test_broker import RECIPE, Table

BATCH_SIZE = 32
MAX_LAG = 1


class Shared(Table):
    """Two sharers of one production, whose producers finish whatever they are told to make."""

    def __init__(self, *, transport: str = "memfd") -> None:
        super().__init__()
        self.transport = transport
        self.sessions: dict[int, int] = {}
        self.credits: dict[int, int] = {}
        for peer in (0, 1):
            self.join(peer)

    def join(self, peer: int) -> None:
        self.feed(ev.FromPeer(b"%d" % peer, msg.Hello("n", transport=self.transport)))
        welcome = self.sent[peer][-1]
        assert isinstance(welcome, msg.Welcome)
        is_framed = self.transport == "frames"
        self.feed(ev.PeerAttached(welcome.session, welcome.token, is_framed))
        spec = msg.Spec("d", RECIPE, msg.Layout(BATCH_SIZE), prefetch=4)
        share = msg.Share("here", 2, 5.0, MAX_LAG)
        self.credits[peer] = ClientSession(spec, "n", "memfd", share).num_slots
        self.sessions[peer] = welcome.session
        request = msg.Open(welcome.session, 1, spec, credit=self.credits[peer], share=share)
        self.feed(ev.FromPeer(b"%d" % peer, request))

    def make_all(self) -> None:
        for lease in self.leases():
            self.done(0, lease)

    def batches(self, peer: int) -> list[msg.BatchMessage]:
        return [message for message in self.sent[peer] if isinstance(message, msg.BatchMessage)]

    def release(self, peer: int, number: int) -> None:
        batch, session = self.batches(peer)[number], self.sessions[peer]
        self.feed(ev.FromPeer(b"%d" % peer, msg.Release(session, batch.slot, batch.generation)))
        self.credits[peer] += 1
        self.feed(ev.FromPeer(b"%d" % peer, msg.Flow(session, 1, self.credits[peer])))
        self.make_all()


def test_a_laggard_is_left_behind_though_the_fast_one_always_holds_a_batch() -> None:
    """As a training loop does: it gives a batch back when it has the next one."""
    table = Shared()
    table.make_all()
    for number in range(MAX_LAG + 1):
        assert not any(isinstance(message, msg.Detached) for message in table.sent[1])
        assert len(table.batches(0)) > number + 1, "another one is in the hand already"
        table.release(0, number)
    assert any(isinstance(message, msg.Detached) for message in table.sent[1])
    for number in range(MAX_LAG + 1, 9):
        table.release(0, number)


def test_who_hears_nothing_more_keeps_what_he_maps_until_his_lifeline_ends() -> None:
    table = Shared()
    table.make_all()
    held = {batch.slot for batch in table.batches(1)}
    assert held
    actions = table.feed(ev.PeerUnreachable(table.sessions[1]))
    assert not any(isinstance(action, ev.EndSession) for action in actions)
    for number in range(12):
        table.release(0, number)
    later = table.batches(0)[MAX_LAG + 2 :]
    assert len(later) > 8
    assert not {batch.slot for batch in later} & held
    assert ev.EndSession(table.sessions[1]) in table.feed(ev.PeerGone(table.sessions[1]))
    for number in range(12, 24):
        table.release(0, number)
    assert {batch.slot for batch in table.batches(0)[14:]} & held, "now they are filled again"


def test_who_gets_the_bytes_sent_has_nothing_to_keep() -> None:
    table = Shared(transport="frames")
    table.make_all()
    session = table.sessions[1]
    assert ev.EndSession(session) in table.feed(ev.PeerUnreachable(session))
    assert table.feed(ev.PeerUnreachable(session)) == [], "and hears it once"


def test_a_private_stream_ends_with_who_hears_nothing_more() -> None:
    table = Table()
    session = table.open(0)
    actions = table.feed(ev.PeerUnreachable(session))
    assert ev.EndSession(session) in actions
    assert any(isinstance(action, ev.DropArena) for action in actions)
