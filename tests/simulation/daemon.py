"""The daemon around the real broker: carries events in and actions out, as
augd/server/daemon/loop.py does.

Everything that the broker asks for is checked against what is really so: by the record
(tests/simulation/daemon_record.py), and which memory exists. It dies between two actions as easily
as anywhere else.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from augd.client.session import Attach
from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts
from tests.simulation.daemon_record import DaemonRecord
from tests.simulation.line import HANGUP, Line
from tests.simulation.remote_host import RemoteHost
from tests.simulation.rows import Row, Violation
from tests.simulation.worker import Arena, Worker

if TYPE_CHECKING:
    from tests.simulation.world import World

PATIENCE_S = 30.0


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
        name = f"life {life}"
        self.broker = Broker(name, "/a", {"d": facts}, world.num_producers, secret=name)
        self.record = DaemonRecord(world.kept)
        self.workers: dict[int, Worker] = {}
        self.remote_hosts: dict[int, RemoteHost] = {}
        self.lines: dict[bytes, Line] = {}
        self.arenas: dict[int, Arena] = {}
        self.made: set[int] = set()  # streams that ever had memory
        self.choices: set[int] = set()  # streams whose samples were chosen
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
            self.record.note_heard(line, message)
        self.feed(ev.FromPeer(peer, message))

    def hear_lifeline(self, line: Line, what: Any) -> None:
        """Take what comes over a lifeline: ATTACH, or its end."""
        is_framed = line.reader.transport == "frames"
        if isinstance(what, Attach):
            if self.broker.admits(what.session, what.token, is_framed=is_framed):
                self.record.attached[what.session] = line
                line.is_attached = True
            self.feed(ev.PeerAttached(what.session, what.token, is_framed))
            return
        assert what is HANGUP
        session = line.reader.session
        if self.record.attached.get(session) is line:
            del self.record.attached[session]
            self.record.forget_reading(session)
            self.feed(ev.PeerGone(session))

    def hear_worker(self, number: int, message: msg.FromProducer) -> None:
        """Take a producer's message."""
        if isinstance(message, msg.Done | msg.Dropped | msg.Fail):
            self.record.close_lease(number, message.lease)
        self.feed(ev.FromLocalProducer(number, message))

    def hear_remote(
        self, number: int, message: msg.FromRelay, rows: list[Row] | None = None
    ) -> None:
        """Take a remote producer's message; its rows go where its lease is, if it has one."""
        target = None
        if isinstance(message, msg.Done):
            target = self.broker.target(number, message.lease)
        if target is not None and rows is not None:
            slot_bytes = self.broker._scheduler.streams[target.stream].slot_bytes
            slot, arena = target.slot_offset // slot_bytes, self.arena(target.stream)
            if arena.num_reading[slot]:
                raise Violation(f"{message} is written while a trainer reads its slot")
            if len(rows) != target.rows:
                raise Violation(f"{len(rows)} rows for the {target.rows} of {message}")
            arena.slots[slot][target.first_row : target.first_row + target.rows] = rows
        self.feed(ev.FromRemoteProducer(number, message))

    def reap(self, number: int) -> None:
        """Wait for a dead producer: first what it said, then how it ended."""
        worker = self.workers[number]
        while worker.outbox:
            self.hear_worker(number, worker.outbox.popleft())
        lost = self.record.remove_exited(number)
        self.world.ghosts += [(number, msg.Done(lease)) for lease in lost]
        del self.workers[number]
        assert worker.ending is not None
        self.feed(
            ev.Reaped(number, f"ended by {worker.ending}", worker.ending, worker.current_sample)
        )

    # out

    def act(self, action: ev.Action, events: deque[ev.Event]) -> None:
        """Carry out an action of the broker."""
        self.world.note(action)
        match action:
            case ev.SendToClient(peer, message):
                self.send_to_peer(peer, message)
            case ev.SendToProducer(number, message):
                self.tell(number, message)
            case ev.StartProducer(number):
                self.start_worker(number)
            case ev.ForgetProducer(number, why):
                remote_host = self.remote_hosts.pop(number, None)
                if remote_host is not None and remote_host.number == number and why:
                    remote_host.lose(is_told=False)
            case ev.KillProducer(number):
                if number in self.remote_hosts:
                    self.tell(number, msg.Kill())
                elif number in self.workers:
                    self.world.kill_by_daemon(self.workers[number])
            case ev.Stop():
                self.has_stopped = True
            case _:
                self.act_on_stream(action, events)

    def send_to_peer(self, peer: bytes, message: msg.ToClient) -> None:
        """Send to the client with this routing id, or to a host that asked to join."""
        if peer in self.lines:
            self.send(self.lines[peer], message)
        for remote_host in self.world.remote_hosts:
            if remote_host.peer == peer:
                remote_host.joined(message)

    def act_on_stream(self, action: ev.Action, events: deque[ev.Event]) -> None:
        """Carry out an action that concerns a stream, its memory or its sessions."""
        match action:
            case ev.SelectSamples(stream):
                events.append(self.choose(stream))
            case ev.MakeArena(stream):
                events.append(self.make_arena(stream))
            case ev.GiveArena(stream, session):
                if session in self.record.attached:
                    self.record.attached[session].arenas[stream] = self.arena(stream)
            case ev.DropArena(stream):
                self.drop(stream)
            case ev.SendSlot():
                self.send_bytes(action)
            case ev.EndSession(session):
                line = self.record.attached.pop(session, None)
                self.record.forget_reading(session)
                if line is not None:
                    line.has_ended = True
            case ev.KeepQuarantine(_, content, entry):
                self.world.keep(content, entry)

    def choose(self, stream: int) -> ev.Event:
        """Choose samples, or find that it cannot be done."""
        if self.world.rng.random() < 0.1:
            return ev.SelectionFailed(stream, "BAD_OPTION", "classes: there is no such class")
        self.choices.add(stream)
        return ev.SamplesSelected(stream, msg.Chosen(self.world.limit))

    def make_arena(self, stream: int) -> ev.Event:
        """Allocate memory, or find that there is none."""
        if self.world.rng.random() < 0.02:
            return ev.ArenaFailed(stream, "no memory")
        made = self.broker._scheduler.streams[stream]
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
            self.record.check_opened(message)
            self.record.streams[message.session] = message.stream
        elif isinstance(message, msg.BatchMessage):
            self.record.check_batch(message)
        elif isinstance(message, msg.QuarantinedMessage):
            self.record.check_news(message)
        line.send(line.down, message)

    def send_bytes(self, action: ev.SendSlot) -> None:
        """Send the bytes of a batch, as they are at this moment, to a line without memory."""
        line = self.record.attached.get(action.session)
        if line is not None:
            rows = list(self.arena(action.stream).slots[action.slot])
            line.send(line.bulk, ((action.opening, action.sequence), rows))

    def tell(self, number: int, message: msg.ToProducer | msg.ToRelay) -> None:
        """Send to a producer; a lease must be of memory that nobody else uses."""
        if number in self.remote_hosts:
            self.remote_hosts[number].down.append(message)
        if number not in self.workers:
            return
        memory = None
        if isinstance(message, msg.StreamMessage):
            memory = self.arena(message.stream), self.num_chosen(message)
        elif isinstance(message, msg.Lease):
            self.record.assign_lease(number, message)
        self.workers[number].inbox.append((message, memory))

    def num_chosen(self, use: msg.StreamMessage) -> int:
        """Return how many samples an epoch has; their list must be here."""
        if use.chosen is None:
            return self.world.num_samples
        if use.stream not in self.choices:
            raise Violation(f"{use} has no list of its samples")
        return use.chosen.num_samples

    # the end

    def cut_everybody(self) -> None:
        """Let every connection break: this daemon is gone."""
        for line in self.lines.values():
            line.is_cut = line.has_ended = True
            line.lose_everything()
            line.lifeline.clear()
