"""What producers are told of datasets and streams: before the first lease of each, and not before.

A link holds few messages that nobody read yet, and a daemon may serve more than that.
"""

from __future__ import annotations

import pytest

from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts
from augd.server.daemon.broker.producers import DEPTH
from tests.support.table import RECIPE, Table

_NEWS = (msg.DatasetMessage, msg.StreamMessage, msg.Drop, msg.Lease, msg.Mask)


class Many(Table):
    """A table whose broker serves 400 datasets."""

    def __init__(self, producers: int) -> None:
        super().__init__(producers)
        facts = {f"set{n}": DatasetFacts(f"{n:032}", f"/{n}", 10_000, (8, 8)) for n in range(400)}
        self.broker = Broker("i", "/a", facts, producers)
        self.sent, self.told = {}, []
        self.feed(ev.Tick())
        for number in range(producers):
            self.feed(ev.FromLocalProducer(number, msg.Ready(number, {})))

    def open_of(self, peer: int, dataset: str) -> int:
        self.feed(ev.FromPeer(b"%d" % peer, msg.Hello("n")))
        welcome = self.sent[peer][-1]
        assert isinstance(welcome, msg.Welcome)
        self.feed(ev.PeerAttached(welcome.session, welcome.token))
        spec = msg.Spec(dataset, RECIPE, msg.Layout(32), prefetch=1)
        self.feed(ev.FromPeer(b"%d" % peer, msg.Open(welcome.session, 1, spec, credit=2)))
        return welcome.session

    def news(self, producer: int) -> list[str]:
        """Name what a producer was told, and empty the list."""
        said = [it for number, it in self.told if number == producer and isinstance(it, _NEWS)]
        self.told = [one for one in self.told if one[0] != producer]
        return [it.name if isinstance(it, msg.DatasetMessage) else type(it).__name__ for it in said]


def held(table: Many) -> list[msg.Lease]:
    """List the leases that are out."""
    numbers = table.broker._scheduler.pool.members[0].leases
    return [msg.Lease(number, 0, 0, 0, 0, 0, 0) for number in numbers]


def test_a_producer_that_starts_hears_of_none_of_400_datasets() -> None:
    table = Many(1)
    assert table.told == []
    table.open_of(0, "set7")
    assert table.news(0) == ["set7", "StreamMessage", "Lease", "Lease"]


def test_it_hears_of_a_dataset_once_and_of_each_stream() -> None:
    table = Many(1)
    table.open_of(0, "set7")
    table.make_all()
    table.news(0)
    table.open_of(1, "set7")
    assert table.news(0) == ["StreamMessage", "Lease", "Lease"]
    table.told = [(0, lease) for lease in held(table)]
    table.make_all()
    table.news(0)
    table.open_of(2, "set8")
    assert table.news(0) == ["set8", "StreamMessage", "Lease", "Lease"]


def test_who_makes_nothing_of_a_stream_hears_nothing_of_it() -> None:
    table = Many(4)
    session = table.open_of(0, "set7")
    told = [table.news(number) for number in range(4)]
    assert sorted(told) == [[], [], *[["set7", "StreamMessage", "Lease"]] * 2]
    table.feed(ev.PeerGone(session))
    dropped = [table.news(number) for number in range(4)]
    assert [("Drop" in said) for said in dropped] == [bool(said) for said in told]


def test_a_producer_that_was_started_again_is_told_anew() -> None:
    table = Many(1)
    table.open_of(0, "set7")
    table.news(0)
    table.feed(ev.Reaped(0, "SIGKILL", ExitReason.OUTSIDE))
    table.now += 10.0
    table.feed(ev.Tick())
    table.feed(ev.FromLocalProducer(0, msg.Ready(2, {})))
    assert table.news(0) == ["set7", "StreamMessage", "Lease", "Lease"]


def test_128_streams_of_as_many_sets_are_told_as_leases_are_given() -> None:
    """All at once they would overflow a link."""
    table = Many(1)
    for peer in range(128):
        table.open_of(peer, f"set{peer}")
    of_all: list[str] = []
    while True:
        said = table.news(0)
        assert len(said) <= 3 * DEPTH, "a dataset, a stream and a lease, as often as it is filled"
        of_all += said
        leases = held(table)
        if not leases:
            break
        for lease in leases:
            table.feed(ev.FromLocalProducer(0, msg.Done(lease.lease)))
    assert len([word for word in of_all if word.startswith("set")]) == 128


@pytest.mark.clause("P-164")
def test_a_client_is_told_once_what_it_may_not_mean() -> None:
    table = Many(1)
    doubtful = DatasetFacts("0" * 32, "/d", 300, (8, 8), doubts=("all images are of one class",))
    table.broker = Broker("i", "/a", {"photos": doubtful}, 1)
    table.feed(ev.Tick())
    table.feed(ev.FromLocalProducer(0, msg.Ready(0, {})))
    chosen = {0: msg.Selection("train"), 1: msg.Selection("train", classes=("a",))}
    for peer, selection in chosen.items():
        table.feed(ev.FromPeer(b"%d" % peer, msg.Hello("n")))
        welcome = table.sent[peer][-1]
        assert isinstance(welcome, msg.Welcome)
        table.feed(ev.PeerAttached(welcome.session, welcome.token))
        spec = msg.Spec("photos", RECIPE, msg.Layout(32), prefetch=1, selection=selection)
        for opening in (1, 2):
            request = msg.Open(welcome.session, opening, spec, credit=2)
            for action in table.feed(ev.FromPeer(b"%d" % peer, request)):
                if isinstance(action, ev.SelectSamples):
                    table.feed(ev.SamplesSelected(action.stream, msg.Chosen(275, 0, 0)))
    told = {peer: [m for m in table.sent[peer] if isinstance(m, msg.Notice)] for peer in chosen}
    doubt, split = told[0]
    assert (doubt.kind, split.kind) == ("doubt", "split")
    assert doubt.text == "dataset 'photos': all images are of one class"
    assert split.text.startswith("dataset 'photos': split='train': 275 of 300 samples; the other")
    assert told[1] == []
    kinds = [type(message) for message in table.sent[0]]
    assert kinds.count(msg.Opened) == 2
    assert kinds.index(msg.Notice) < kinds.index(msg.Opened)
