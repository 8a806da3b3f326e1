"""One producer of this host, and its connection to a daemon on another.

Runs in the relay's process, between a producer and the daemon. The producer knows its link only.
The daemon leases work to it as to its own producers. Messages of both are forwarded unchanged, with
three exceptions. Descriptors come from this host: index, memory, list of samples. A DONE is sent
with its rows. The producer's exit is reported by ENDED, as this host's kernel reports it.

Theory of operation. A remote producer has these states; `due` is when it acts by itself:

    paused ──spawn──▶ starting ──READY──▶ waiting ──JOIN──▶ joining ──JOINED──▶ serving
       ▲                                     ▲                  │                  │ connection
       │                                     ├──no answer───────┘                  ▼ lost, PART
       └──the producer exited (any state)    └──all leases answered────────── clearing

A new connection has new leases, maybe of a new daemon, and their numbers may repeat. So the relay
joins again only when the producer has answered all its leases; these answers are dropped. Each
stream's memory belongs to one connection and is dropped with it.

Invariants: a lease's rows are not overwritten until the daemon leases their slot again, which it
does only after it received them. Every wait has a deadline. A silent daemon does not count as dead:
ZeroMQ's heartbeats end a broken connection.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from augd.dataset.index_file import IndexFile
from augd.dataset.selection import Choices
from augd.errors import ConnectError, ConnectionLost, ProtocolError, SpecMismatch, error_from_code
from augd.process.exit_status import reap
from augd.process.oom_kills import OomKillCounter
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.exit_reason import HELD_BY_KERNEL, NEXT_WITHOUT_KERNELS
from augd.protocol.slot_layout import arrays_at, row_frames
from augd.server.supervision.fetcher_process import FetcherProcess
from augd.server.supervision.producer_process import (
    ProducerOptions,
    ProducerProcess,
    spawn_producer,
)
from augd.server.supervision.sample_selection import select_samples
from augd.transport import unix_link
from augd.transport.address import Address, TcpAddress, rows_address
from augd.transport.arena import make_arena, map_arena
from augd.transport.zmq_sockets import Curve, Dealer, Poller

_log = logging.getLogger("augd")

BEAT_S = 2.0
ANSWER_S = 5.0  # JOIN and ATTACH are answered within a round trip
START_S = 60.0  # imports with cold caches
CLEAR_S = 30.0  # a working producer answers within one chunk; after this time it hangs
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 5.0
_LINGER_S = 2.0  # until the last messages are sent


@dataclass(slots=True)
class RelayContext:
    """What the remote producers of a relay share."""

    address: Address | TcpAddress
    curve: Curve | None
    host: str
    datasets: dict[str, IndexFile]
    producer_options: ProducerOptions
    poller: Poller
    choices: Choices = field(default_factory=Choices)
    oom_kills: OomKillCounter = field(default_factory=OomKillCounter)
    numbers: Callable[[], int] = field(default_factory=lambda: count(1).__next__)
    is_draining: bool = False
    fetcher: FetcherProcess | None = None
    troubles: set[str] = field(default_factory=set)  # of this installation, logged already

    def note_trouble(self, text: str) -> None:
        """Log a fault of this host's installation once; all producers report the same."""
        if text not in self.troubles:
            self.troubles.add(text)
            _log.warning("%s; `augd doctor` says what to do", text)


@dataclass(slots=True)
class _Memory:
    """Memory for the rows of a stream: a slot per lease."""

    use: msg.StreamMessage
    view: memoryview
    choice: int

    def rows(self, lease: msg.Lease) -> list[memoryview]:
        """Return the frames of a lease's rows."""
        start = lease.slot * self.use.slot_bytes
        slot = self.view[start : start + self.use.slot_bytes]
        arrays = arrays_at(self.use.arrays, self.use.phases, lease.epoch)
        frames = row_frames(arrays, lease.first_row, lease.rows)
        return [slot[at : at + size] for at, size in frames]


class RemoteProducer:
    """See the module's theory of operation. The relay calls `act`, `read_...` and `reap`."""

    def __init__(self, context: RelayContext, place: int) -> None:
        """Start without a process: `act` spawns it."""
        self._context = context
        self._place = place
        self.state = "paused"
        self.due = 0.0
        self._beat_at = 0.0
        self._spawned: ProducerProcess | None = None
        self._ready: msg.Ready | None = None
        self._dealer: Dealer | None = None
        self._unanswered: dict[int, tuple[msg.Lease, _Memory]] = {}
        self._streams: dict[int, _Memory] = {}
        self._was_accepted = False  # the daemon sent something over the row channel
        self._failures = 0  # exits, or joins without an answer, in a row
        self.number = 0

    @property
    def is_gone(self) -> bool:
        """Whether there is no producer and none will be started."""
        return self.state == "paused" and self._context.is_draining

    def next_due(self) -> float:
        """Return when `act` must be called at the latest."""
        if self.is_gone:
            return float("inf")
        return min(self.due, self._beat_at) if self.state == "serving" else self.due

    def act(self, now: float) -> None:
        """Do what is due.

        Raises:
            AugdError: the daemon rejects this key, or this host's datasets or libraries.
        """
        if self._dealer is not None:
            self._look_at_connection(self._dealer, now)
        if self.state == "serving" and self._beat_at <= now:
            self._send(msg.Beat(is_idle=not self._unanswered))
            self._beat_at = now + BEAT_S
        if self.due > now or self.is_gone:
            return
        if self.state == "paused":
            self._spawn(now)
        elif self.state in ("starting", "clearing"):
            assert self._spawned is not None
            _log.warning("producer %d was silent for too long: killed", self._place)
            self._spawned.kill()
            self.due = now + CLEAR_S
        elif self.state == "waiting" and self._context.is_draining:
            self.due = float("inf")  # its producer was asked to end
        elif self.state == "waiting":
            self._join(now)
        elif self.state == "joining":
            self._wait(f"no answer from {self._context.address}: retrying", now)
        elif not self._was_accepted:
            self._lose(f"{self._context.address} did not accept the producer", now)
        else:
            self.due = float("inf")

    def drain(self) -> None:
        """Have the producer finish its current rows and exit; other leases are returned."""
        if self._spawned is not None and not unix_link.send(
            self._spawned.link, codec.encode(msg.Drain())
        ):
            self._spawned.kill()

    def kill(self) -> None:
        """Kill its producer, if it runs."""
        if self._spawned is not None:
            self._spawned.kill()

    def close(self, within_s: float) -> None:
        """Kill the producer if it runs, and wait for its exit at most so long."""
        if self._spawned is not None:
            self._spawned.kill()
            if reap(self._spawned.process, within_s) is None:
                pid = self._spawned.process.pid
                _log.error(
                    "producer %d (pid %d) was killed and did not exit: %s",
                    self._place,
                    pid,
                    HELD_BY_KERNEL,
                )
            self._forget_process()
        self._close_connection(0.0)
        self._drop_streams()

    # the producer

    def _spawn(self, now: float) -> None:
        try:
            self._spawned = spawned = spawn_producer(self._context.producer_options, self._place)
        except OSError as error:
            self._pause(f"a producer could not be started: {error}: retrying", now)
            return
        if self._context.fetcher is not None:
            self._context.fetcher.add(self._place, spawned.take_fetch_channel())
        self._context.poller.register(spawned.link.fileno(), ("link", self))
        self._context.poller.register(spawned.pidfd, ("pidfd", self))
        self.state, self.due = "starting", now + START_S

    def read_link(self, now: float) -> None:
        """Receive the producer's messages."""
        while self._spawned is not None:
            try:
                received = unix_link.receive(self._spawned.link, wait=False)
                if received is None:
                    return
                message = codec.decode_from_producer(received[0])
            except (EOFError, OSError):
                self._context.poller.unregister(self._spawned.link.fileno())  # the pidfd follows
                return
            except ProtocolError as error:
                _log.error("producer %d sent a malformed message: killed: %s", self._place, error)
                self._spawned.kill()
                return
            self._forward_to_daemon(message, received[0], now)

    def _forward_to_daemon(self, message: msg.FromProducer, frame: bytes, now: float) -> None:
        if isinstance(message, msg.Ready):
            assert self._spawned is not None
            self._spawned.note_ready()
            self._ready = message
            self.state, self.due = "waiting", now
            return
        if isinstance(message, msg.Trouble):
            self._context.note_trouble(message.text)
            return
        frames: list[bytes | memoryview] = [frame]
        if isinstance(message, msg.Done | msg.Dropped | msg.Fail):
            lease, memory = self._unanswered.pop(message.lease, (None, None))
            if isinstance(message, msg.Done) and lease is not None and memory is not None:
                self._failures = 0
                frames += memory.rows(lease)
        if self.state == "serving":
            assert self._dealer is not None
            self._dealer.send_rows(frames)
        elif self.state == "clearing" and not self._unanswered:
            self._drop_streams()
            self._wait("", now)

    def reap(self, now: float) -> None:
        """Reap the producer if it exited, and report that to the daemon."""
        spawned = self._spawned
        if spawned is None or spawned.process.poll() is None:
            return
        self.read_link(now)  # what it sent before it exited
        kind, how, current_sample = (
            spawned.ending(self._context.oom_kills),
            spawned.how_ended(),
            spawned.current_sample(),
        )
        self._forget_process()
        if self.state == "serving":
            self._send(msg.Ended(how, str(kind), current_sample))  # type: ignore[arg-type]
        self._close_connection(_LINGER_S)
        self._unanswered.clear()
        self._drop_streams()
        if spawned.is_tried_otherwise(kind):
            how = f"{how} {NEXT_WITHOUT_KERNELS}"
        self._pause(
            "" if self._context.is_draining else f"producer {self._place} ended: {how}", now
        )

    def _forget_process(self) -> None:
        assert self._spawned is not None
        self._context.poller.unregister(self._spawned.link.fileno())
        self._context.poller.unregister(self._spawned.pidfd)
        self._spawned.close()
        self._spawned = None
        if self._context.fetcher is not None:
            self._context.fetcher.drop(self._place)

    # the daemon

    def _join(self, now: float) -> None:
        assert self._ready is not None
        context = self._context
        self._connect(context.address)
        digests = {name: index.digest for name, index in context.datasets.items()}
        ready = self._ready
        join = msg.Join(context.host, ready.pid, digests, ready.environment, ready.confinement)
        self._send(join)
        self.state, self.due = "joining", now + ANSWER_S

    def _connect(self, address: Address | TcpAddress) -> None:
        self._close_connection(0.0)
        self._dealer = Dealer(address, self._context.curve, is_watched=True)
        self._context.poller.register(self._dealer, ("daemon", self))
        self._context.poller.register(self._dealer.monitor, ("monitor", self))

    def _look_at_connection(self, dealer: Dealer, now: float) -> None:
        if self.state == "joining":
            try:
                dealer.check_handshake(is_new=True)
            except ConnectError as error:  # the daemon may be about to exit
                self._wait(str(error), now)
                return
        if dealer.has_ended():
            why = f"the connection to {self._context.address} ended"
            (self._lose if self.state == "serving" else self._wait)(why, now)

    def _close_connection(self, linger_s: float) -> None:
        if self._dealer is not None:
            self._context.poller.unregister(self._dealer)
            self._context.poller.unregister(self._dealer.monitor)
            self._dealer.close(linger_s)
            self._dealer = None

    def read_daemon(self, now: float) -> None:
        """Receive the daemon's messages."""
        while self._dealer is not None and (frames := self._receive(self._dealer, now)) is not None:
            if self.state == "joining":
                self._take_answer(codec.decode_to_client(frames[0]), now)
                return  # what follows comes over another connection
            self._was_accepted = True
            self._forward_to_producer(codec.decode_to_relay(frames[0]), frames[0], now)

    def _receive(self, dealer: Dealer, now: float) -> list[bytes] | None:
        try:
            return dealer.receive()
        except ConnectionLost as lost:
            (self._lose if self.state == "serving" else self._wait)(str(lost), now)
            return None

    def _take_answer(self, answer: msg.ToClient, now: float) -> None:
        match answer:
            case msg.Joined(number, token, port):
                self._connect(rows_address(self._context.address, port))
                self.number = number
                self._send(msg.AttachMessage(number, token))
                self.state, self.due = "serving", now + ANSWER_S
                self._beat_at, self._was_accepted = now + BEAT_S, False
            case msg.Error(code, text) if answer.is_retryable or code in ("DRAINING", "OVER_LIMIT"):
                self._wait(f"{self._context.address}: {text}", now)
            case msg.Error(code, text):
                raise error_from_code(code, f"{self._context.address}: {text}")
            case _:
                raise ProtocolError(f"sent JOIN to {self._context.address}, got {answer}")

    def _forward_to_producer(self, message: msg.ToRelay, frame: bytes, now: float) -> None:
        """Send a message of the daemon to the producer, with the fds of this host."""
        fds: tuple[int, ...] = ()
        match message:
            case msg.Part(why):
                self._lose(f"{self._context.address}: {why}", now)
                return
            case msg.Kill():
                assert self._spawned is not None
                self._spawned.kill()
                return
            case msg.DatasetMessage(name, _, digest):
                index = self._context.datasets[name]
                frame = codec.encode(msg.DatasetMessage(name, index.root, digest))
                fds = (index.fd, index.dims_fd)
            case msg.StreamMessage():
                self._use_stream(message)
                return
            case msg.Drop(stream):
                self._drop_stream(stream)
            case msg.Lease(lease, stream):
                if stream not in self._streams:
                    raise ProtocolError(f"{message} names a stream that was never announced")
                self._unanswered[lease] = (message, self._streams[stream])
            case msg.Drain():
                self._context.is_draining = True
                return  # the relay drains all its producers
        self._tell(frame, fds)

    def _use_stream(self, use: msg.StreamMessage) -> None:
        """Make a stream's memory for current leases, and the list of its samples.

        Raises:
            OverLimit: this host has too little memory.
            SpecMismatch: the list differs from the daemon's.
        """
        size_bytes = use.slot_bytes * use.num_slots
        arena = make_arena("augd-rows", size_bytes)
        try:
            memory = _Memory(use, memoryview(map_arena(arena, size_bytes)), self._context.numbers())
            self._streams[use.stream] = memory
            choice = () if use.chosen is None else (_select(self._context, use, memory.choice),)
            self._tell(codec.encode(use), (arena, *choice))
        finally:
            os.close(arena)

    def _tell(self, frame: bytes, fds: tuple[int, ...] = ()) -> None:
        assert self._spawned is not None
        if not unix_link.send(self._spawned.link, frame, fds) and unix_link.is_connected(
            self._spawned.link
        ):
            _log.error("producer %d did not read its messages: killed", self._place)
            self._spawned.kill()

    def _send(self, message: msg.Message) -> None:
        assert self._dealer is not None
        self._dealer.send(codec.encode(message))

    # losses

    def _lose(self, why: str, now: float) -> None:
        """Close the connection; join again when the producer has answered all its leases."""
        _log.warning("producer %d: %s", self._place, why)
        self._close_connection(0.0)
        if not self._unanswered:
            self._drop_streams()
            self._wait("", now)
            return
        self._tell(codec.encode(msg.Revoke(tuple(self._unanswered))))
        self.state, self.due = "clearing", now + CLEAR_S

    def _wait(self, why: str, now: float) -> None:
        """Join again after a pause."""
        self._close_connection(0.0)
        if why and not self._failures:
            _log.warning("%s", why)
        self.state, self.due = "waiting", now + self._pause_s()

    def _pause(self, why: str, now: float) -> None:
        """Start another producer after a pause."""
        if why:
            _log.warning("%s", why)
        self._ready = None
        self.state, self.due = "paused", now + self._pause_s()

    def _pause_s(self) -> float:
        """Return the next pause: it doubles, and differs by place to spread the joins."""
        self._failures += 1
        spread = 1 + (self._place % 16) / 32
        return min(PAUSE_MAX_S, PAUSE_MIN_S * 2.0 ** min(self._failures - 1, 10)) * spread

    def _drop_streams(self) -> None:
        for stream in list(self._streams):
            self._drop_stream(stream)
            if self._spawned is not None:
                self._tell(codec.encode(msg.Drop(stream)))

    def _drop_stream(self, stream: int) -> None:
        memory = self._streams.pop(stream, None)
        if memory is not None:
            self._context.choices.drop(memory.choice)


def _select(context: RelayContext, use: msg.StreamMessage, number: int) -> int:
    """Select a stream's samples as the daemon did; returns the fd of the list.

    Raises:
        SpecMismatch: the list differs from the daemon's.
    """
    index = context.datasets[use.dataset]
    key = (use.dataset, use.selection)
    shared = context.choices.take(number, key, lambda: select_samples(index, use.selection))
    found = msg.Chosen(shared.num_samples, shared.num_groups, shared.num_picked)
    if found != use.chosen:
        raise SpecMismatch(
            f"{use.dataset}: expected the selection of samples to be {use.chosen} as on "
            f"{context.address}, got {found}; install the same version of augd on both"
        )
    return context.choices.fd(number)
