"""A broker on a table: the test is its clients and producers, and time stands still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import chunk_size
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts

RECIPE = {"ops": [{"op": "center_crop", "size": 8}]}
# As if it were known that a row takes what rows usually take: tests of that set it back.
chunk_size.CHUNK_ROWS_UNKNOWN = chunk_size.CHUNK_ROWS
Kind = TypeVar("Kind", bound=msg.Message)


class Table:
    """A broker with ready producers and clients that open streams; time stands still."""

    def __init__(
        self,
        producers: int = 1,
        num_samples: int = 100_000,
        quarantine: Mapping[str, tuple[msg.Quarantined, ...]] | None = None,
    ) -> None:
        facts = DatasetFacts("0" * 32, "/d", num_samples, (8, 8), quarantine=quarantine or {})
        self.broker = Broker("i", "/a", {"d": facts}, producers)
        self.sent: dict[int, list[msg.ToClient]] = {}
        self.told: list[tuple[int, msg.ToProducer]] = []
        self.actions: list[ev.Action] = []
        self.now = 0.0
        self.feed(ev.Tick())
        for number in range(producers):
            self.feed(ev.FromLocalProducer(number, msg.Ready(number, {})))

    def feed(self, event: ev.Event) -> list[ev.Action]:
        actions = self.broker.handle(event, self.now)
        self.actions += actions
        for action in actions:
            match action:
                case ev.SendToProducer(number, message):
                    self.told.append((number, message))
                case ev.SendToClient(peer, message):
                    self.sent.setdefault(int(peer), []).append(message)
                case ev.MakeArena(stream):
                    self.feed(ev.ArenaMade(stream))
                case _:
                    pass
        return actions

    def open(
        self,
        peer: int,
        *,
        batch_size: int = 320,
        layout: msg.Layout | None = None,
        prefetch: int = 1,
        place: tuple[int, int] = (0, 0),
        share: msg.Share | None = None,
        quarantine: msg.Quarantine = (),
        credit: int | None = None,
        **spec: object,
    ) -> int:
        """Open a stream, with as much credit as it has slots by default; returns the session."""
        self.feed(ev.FromPeer(b"%d" % peer, msg.Hello("n")))
        welcome = self.sent[peer][-1]
        assert isinstance(welcome, msg.Welcome)
        self.feed(ev.PeerAttached(welcome.session, welcome.token))
        layout = layout or msg.Layout(batch_size)
        whole = msg.Spec("d", RECIPE, layout, prefetch=prefetch, **spec)  # type: ignore[arg-type]
        session = welcome.session
        credit = prefetch + 1 if credit is None else credit
        request = msg.Open(session, 1, whole, *place, credit, quarantine=quarantine, share=share)
        self.feed(ev.FromPeer(b"%d" % peer, request))
        return welcome.session

    def leases(self, producer: int | None = None) -> list[msg.Lease]:
        return [
            message
            for number, message in self.told
            if isinstance(message, msg.Lease) and producer in (None, number)
        ]

    def done(self, producer: int, lease: msg.Lease, row_ns: int = 0) -> None:
        took_ns = row_ns * lease.rows
        done = msg.Done(lease.lease, busy_ns=took_ns, cpu_ns=took_ns)
        self.feed(ev.FromLocalProducer(producer, done))

    def make_all(self, row_ns: int = 0) -> None:
        """Have every lease that is out, and all that follow, made by its producer."""
        at = 0
        while at < len(self.told):
            number, message = self.told[at]
            at += 1
            if isinstance(message, msg.Lease):
                self.done(number, message, row_ns)

    def die(self, producer: int, lease: msg.Lease, row: int, sample: int) -> list[ev.Action]:
        """End a producer by a signal with a sample in hand, and start it anew."""
        current_sample = (lease.lease, row, sample)
        actions = self.feed(ev.Reaped(producer, "SIGSEGV", ExitReason.SIGNAL, current_sample))
        self.now += 10.0
        actions += self.feed(ev.Tick())
        return actions + self.feed(ev.FromLocalProducer(producer, msg.Ready(producer, {})))

    def got(self, peer: int, kind: type[Kind]) -> list[Kind]:
        """List the messages of a kind that a client got."""
        return [message for message in self.sent[peer] if isinstance(message, kind)]
