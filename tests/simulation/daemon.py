"""The daemon around the real broker: carries events in and actions out, as augd/daemon.py does.

Everything that the broker asks for is checked against what is really so: which leases are out
and may still be written, which slots somebody may read, what credit was granted, which memory
exists. It dies between two actions as easily as anywhere else.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

from augd.broker import events as ev
from augd.broker.core import Broker, DatasetFacts
from augd.broker.quarantine import united
from augd.broker.reader import Attach
from augd.wire import messages as msg
from tests.simulation.line import HANGUP, Line
from tests.simulation.rows import Violation
from tests.simulation.worker import Arena, Worker

if TYPE_CHECKING:
    from tests.simulation.world import World

PATIENCE_S = 30.0
Where = tuple[int, int]  # (stream, slot)


class Crashed(Exception):
    """The daemon was killed here."""


class Daemon:
    """One life of the daemon."""

    def __init__(self, world: World, life: int) -> None:
        facts = DatasetFacts(
            "0" * 32, "/d", world.num_samples, (1, 1), quarantine=world.store.by_content()
        )
        self.world = world
        self.life = life
        self.broker = Broker(f"life {life}", "/a", {"d": facts}, world.num_producers)
        self.workers: dict[int, Worker] = {}
        self.lines: dict[bytes, Line] = {}
        self.attached: dict[int, Line] = {}
        self.arenas: dict[int, Arena] = {}
        self.made: set[int] = set()  # streams that ever had memory
        self.choices: set[int] = set()  # streams whose samples were chosen
        self.leases: dict[Where, dict[int, msg.Lease]] = defaultdict(dict)
        self.leased_by: dict[int, set[tuple[Where, int]]] = defaultdict(set)
        self.reading: dict[Where, dict[int, int]] = defaultdict(dict)  # session -> generation
        self.contents: dict[tuple[int, int, int], tuple[int, int, bytes]] = {}
        self.streams: dict[int, int] = {}  # session -> its stream
        self.credit: dict[tuple[int, int], int] = {}
        self.openings: dict[int, int] = {}
        self.actions_left: float = float("inf")
        self.has_stopped = False
        self.is_draining = False

    # in

    def feed(self, event: ev.Event) -> None:
        """Give an event to the broker and do what it wants; events made thereby come after."""
        events = deque([event])
        while events:
            self.world.note(events[0])
            for action in self.broker.handle(events[0], self.world.now):
                self.actions_left -= 1
                if self.actions_left < 0:
                    raise Crashed
                self.act(action, events)
            events.popleft()
        self.world.look(self)

    def tick(self) -> None:
        """Let time have passed; nothing that is due may stay due."""
        self.feed(ev.Tick())
        deadline = self.broker.next_deadline()
        if deadline is not None and deadline <= self.world.now and not self.has_stopped:
            raise Violation(f"due at {deadline} after a Tick at {self.world.now}: it would spin")

    def hear(self, peer: bytes, message: msg.FromClient) -> None:
        """Take a client's control message."""
        line = self.lines.get(peer)
        if line is not None:
            self.note_heard(line, message)
        self.feed(ev.FromPeer(peer, message))

    def note_heard(self, line: Line, message: msg.FromClient) -> None:
        """Keep the books: what this message allows the broker to do."""
        session = getattr(message, "session", 0)
        if self.attached.get(session) is not line and not isinstance(message, msg.Open):
            return
        match message:
            case msg.Open(_, opening) if opening > self.openings.get(session, 0):
                self.openings[session] = opening
                self.credit[session, opening] = message.credit
                self.forget_reading(session, message.held)
            case msg.Flow(_, opening, credit):
                known = self.credit.get((session, opening), 0)
                self.credit[session, opening] = max(known, credit)
            case msg.Release(_, slot, generation):
                where = self.streams.get(session, 0), slot
                if self.reading[where].get(session) == generation:
                    del self.reading[where][session]
            case msg.Bye(_, held):
                self.forget_reading(session, held if line.reader.share is not None else ())

    def forget_reading(self, session: int, held: Any = ()) -> None:
        """Count a session as reading these slots only."""
        kept = set(held)
        for (_, slot), readers in self.reading.items():
            if session in readers and (slot, readers[session]) not in kept:
                del readers[session]

    def hear_lifeline(self, line: Line, what: Any) -> None:
        """Take what comes over a lifeline: ATTACH, or its end."""
        is_framed = line.reader.transport == "frames"
        if isinstance(what, Attach):
            if self.broker.admits(what.session, what.token, is_framed=is_framed):
                self.attached[what.session] = line
                line.is_attached = True
            self.feed(ev.PeerAttached(what.session, what.token, is_framed))
            return
        assert what is HANGUP
        session = line.reader.session
        if self.attached.get(session) is line:
            del self.attached[session]
            self.forget_reading(session)
            self.feed(ev.PeerGone(session))

    def hear_worker(self, number: int, message: msg.FromProducer) -> None:
        """Take a producer's message."""
        if isinstance(message, msg.Done | msg.Dropped | msg.Fail):
            self.close_lease(number, message.lease)
        self.feed(ev.FromCrew(number, message))

    def close_lease(self, number: int, lease: int) -> None:
        """Count a lease as answered."""
        for where, other in [one for one in self.leased_by[number] if one[1] == lease]:
            self.leased_by[number].discard((where, other))
            del self.leases[where][lease]

    def reap(self, number: int) -> None:
        """Wait for a dead producer: first what it said, then how it ended."""
        worker = self.workers[number]
        while worker.outbox:
            self.hear_worker(number, worker.outbox.popleft())
        for where, lease in self.leased_by.pop(number, set()):
            del self.leases[where][lease]
            self.world.ghosts.append((number, msg.Done(lease)))
        del self.workers[number]
        assert worker.ending is not None
        self.feed(ev.Reaped(number, f"ended by {worker.ending}", worker.ending, worker.crumb))

    # out

    def act(self, action: ev.Action, events: deque[ev.Event]) -> None:
        """Do what the broker wants."""
        self.world.note(action)
        match action:
            case ev.Send(peer, message):
                if peer in self.lines:
                    self.send(self.lines[peer], message)
            case ev.Tell(number, message):
                self.tell(number, message)
            case ev.SelectSamples(stream):
                events.append(self.choose(stream))
            case ev.MakeArena(stream):
                events.append(self.make_arena(stream))
            case ev.GiveArena(stream, session):
                if session in self.attached:
                    self.attached[session].arenas[stream] = self.arena(stream)
            case ev.DropArena(stream):
                self.drop(stream)
            case ev.SendSlot():
                self.send_bytes(action)
            case ev.EndSession(session):
                line = self.attached.pop(session, None)
                self.forget_reading(session)
                if line is not None:
                    line.has_ended = True
            case ev.KeepQuarantine(_, content, entry):
                self.world.keep(content, entry)
            case ev.StartProducer(number):
                self.start_worker(number)
            case ev.KillProducer(number):
                if number in self.workers:
                    self.world.kill_by_daemon(self.workers[number])
            case ev.Stop():
                self.has_stopped = True

    def choose(self, stream: int) -> ev.Event:
        """Choose samples, or find that it cannot be done."""
        if self.world.rng.random() < 0.1:
            return ev.SelectFailed(stream, "BAD_OPTION", "classes: there is no such class")
        self.choices.add(stream)
        return ev.Selected(stream, msg.Chosen(self.world.limit))

    def make_arena(self, stream: int) -> ev.Event:
        """Allocate memory, or find that there is none."""
        if self.world.rng.random() < 0.02:
            return ev.ArenaFailed(stream, "no memory")
        made = self.broker._works.streams[stream]
        self.arenas[stream] = Arena(len(made.slots), made.spec.layout.batch_size)
        self.made.add(stream)
        return ev.ArenaMade(stream)

    def drop(self, stream: int) -> None:
        """Close a stream's memory and its list; what stood may not be closed twice."""
        if stream in self.made and stream not in self.arenas:
            raise Violation(f"the arena of stream {stream} is dropped twice")
        self.arenas.pop(stream, None)
        self.choices.discard(stream)

    def arena(self, stream: int) -> Arena:
        """Return memory that must exist."""
        if stream not in self.arenas:
            raise Violation(f"the arena of stream {stream} is used, which does not stand")
        return self.arenas[stream]

    def start_worker(self, number: int) -> None:
        """Start a producer."""
        if number in self.workers:
            raise Violation(f"producer {number} is started before the last one was reaped")
        self.workers[number] = Worker(self.world.meet)

    def send(self, line: Line, message: msg.ToClient) -> None:
        """Send to a client; what it may not be sent is a violation."""
        if isinstance(message, msg.Opened):
            self.check_opened(message)
            self.streams[message.session] = message.stream
        elif isinstance(message, msg.BatchReady):
            self.check_batch(message)
        elif isinstance(message, msg.NewlyQuarantined):
            self.check_news(message)
        line.send(line.down, message)

    def check_news(self, news: msg.NewlyQuarantined) -> None:
        """A verdict is told only after it was written down."""
        if not set(news.entries) <= {entry for _, entry in self.world.kept}:
            raise Violation(f"{news} before it was written down")

    def check_opened(self, opened: msg.Opened) -> None:
        """What was written down holds wherever a stream of that content begins anew."""
        is_joined = opened.is_shared and opened.stream in self.streams.values()
        masked = united(opened.quarantine)
        for content, (sample, *place) in self.world.kept:
            is_meant = content == opened.content and not is_joined
            if is_meant and masked.get(sample, (1 << 62, 0)) > tuple(place):
                raise Violation(f"{opened} does not mask sample {sample} from {place} on")

    def check_batch(self, ready: msg.BatchReady) -> None:
        """A batch needs credit, a slot that nobody writes, and the same bytes for everybody."""
        stream = self.streams[ready.session]
        where = stream, ready.slot
        if ready.sequence >= self.credit.get((ready.session, ready.opening), 0):
            raise Violation(f"credit exceeded by {ready}")
        if self.leases[where]:
            raise Violation(f"sent while it is written: {ready}")
        readers = self.reading[where]
        if ready.session in readers or any(g != ready.generation for g in readers.values()):
            raise Violation(f"sent while it is read by {readers}: {ready}")
        readers[ready.session] = ready.generation
        here = ready.epoch, ready.position, ready.digest
        if self.contents.setdefault((*where, ready.generation), here) != here:
            raise Violation(f"sharers got different batches: {ready}")

    def send_bytes(self, action: ev.SendSlot) -> None:
        """Send the bytes of a batch, as they are at this moment, to a line without memory."""
        line = self.attached.get(action.session)
        if line is not None:
            rows = list(self.arena(action.stream).slots[action.slot])
            line.send(line.bulk, ((action.opening, action.sequence), rows))

    def tell(self, number: int, message: msg.ToProducer) -> None:
        """Send to a producer; a lease must be of memory that nobody else uses."""
        if number not in self.workers:
            return
        memory = None
        if isinstance(message, msg.UseStream):
            memory = self.arena(message.stream), self.num_chosen(message)
        elif isinstance(message, msg.Lease):
            self.check_lease(message)
            where = message.stream, message.slot
            self.leases[where][message.lease] = message
            self.leased_by[number].add((where, message.lease))
        self.workers[number].inbox.append((message, memory))

    def num_chosen(self, use: msg.UseStream) -> int:
        """Return how many samples an epoch has; their list must be here."""
        if use.chosen is None:
            return self.world.num_samples
        if use.stream not in self.choices:
            raise Violation(f"{use} has no list of its samples")
        return use.chosen.num_samples

    def check_lease(self, lease: msg.Lease) -> None:
        """A lease is of rows that nobody else writes, in a slot that nobody reads."""
        where = lease.stream, lease.slot
        if self.reading[where]:
            raise Violation(f"leased while it is read by {self.reading[where]}: {lease}")
        mine = range(lease.first_row, lease.first_row + lease.rows)
        for other in self.leases[where].values():
            theirs = range(other.first_row, other.first_row + other.rows)
            if mine.start < theirs.stop and theirs.start < mine.stop:
                raise Violation(f"two leases write the same rows: {lease} and {other}")

    # the end

    def cut_everybody(self) -> None:
        """Let every connection break: this daemon is gone."""
        for line in self.lines.values():
            line.is_cut = line.has_ended = True
            line.lose_everything()
            line.lifeline.clear()
