"""The connection of one stream: its socket, its lifeline, and the state of the protocol.

Runs in the training process, below `augd/client/stream_connection.py`. It sends and receives;
`augd/client/session.py` decides what the messages mean. It starts no thread and loads no NumPy, so
that OPEN is sent before NumPy is loaded. It touches the socket only inside its own calls and when a
batch is given back.

A slot goes back to the daemon when the last view of it is gone, in whichever thread or garbage
collection that happens. The release is queued. It is sent at once if the socket is free, else with
the next call.
"""

from __future__ import annotations

import gc
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from augd.client.session import Attach, ClientSession, Deliver, Outcome, PassEnded, SessionDetached
from augd.client.slots import FramedSlots, SharedSlots, Slots
from augd.client.status import StatusClient
from augd.client.wait_notice import describe_standstill
from augd.errors import AugdError, BatchesHeld, ConnectError, ConnectionLost, StreamClosed
from augd.process.awake_clock import Awake
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.quarantine import united
from augd.transport.address import (
    Address,
    TcpAddress,
    bulk_address,
    no_daemon,
    require_daemon,
)
from augd.transport.lifeline import Lifeline
from augd.transport.zmq_sockets import Curve, Dealer, Poller
from augd.version import __version__

_LOOK_AGAIN_S = 1.0
# An ERROR that the daemon sent before it closed comes over another socket, and maybe later.
_LAST_WORDS_S = 0.1
_WHY_S = 1.0  # for the status of a daemon that sent nothing, before the error says so


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins: its place, the quarantine that it knows, and with whom it shares.

    `is_split_open` means that the user chose no split; the session then chooses one.
    """

    epoch: int = 0
    position: int = 0
    quarantine: msg.Quarantine = ()
    share: msg.Share | None = None
    is_split_open: bool = False


class Connection:
    """The connection of one stream: socket, lifeline, and the protocol's state.

    Separate from `Stream` because batches that outlive their stream still release through it.
    The constructor sends OPEN; it raises the daemon's error, or `ConnectError`.
    """

    def __init__(
        self,
        address: Address | TcpAddress,
        spec: msg.Spec,
        transport: Literal["memfd", "frames"],
        timeout_s: float,
        start: Start,
        curve: Curve | None = None,
        log_wait: Callable[[], float] | None = None,
        clock: Awake | None = None,
    ) -> None:
        require_daemon(address)
        self.address = address
        self.timeout_s = timeout_s
        self.pid = os.getpid()
        self.session = ClientSession(
            spec, secrets.token_hex(8), transport, start.share, start.is_split_open
        )
        self.session.quarantine = united(start.quarantine)
        self.session.seek(start.epoch, start.position)
        self.classes: list[str] = []
        self.arena = memoryview(b"")
        self.slots: list[memoryview] = []
        self.is_closed = False
        self.fetch_s = 0.0  # waiting for finished batches that were on their way
        self._is_leaving = False
        self._mapped_stream = 0
        self._early: list[bytes] | None = None
        self._slots_memory: Slots | None = None
        self._busy = threading.Lock()
        self._released: deque[tuple[int, int]] = deque()
        self._curve = curve
        self._log_wait = log_wait  # while it opens: logs the wait, returns the seconds to the next
        self._dealer = Dealer(address, curve, is_watched=True)
        self.clock = clock or Awake()
        self._poller = Poller(self.clock)
        self._poller.register(self._dealer, "dealer")
        # ZeroMQ reconnects by itself, as a peer that the daemon doesn't know.
        self._poller.register(self._dealer.monitor, "monitor")
        self._deadline = self.clock.now() + timeout_s
        try:
            self._perform(self.session.start(f"augd {__version__}"))
            while self.session.state in ("greeting", "attaching"):
                self._step(self._deadline)
        except BaseException:
            self.close()
            raise

    def await_open(self) -> None:
        """Wait for OPENED, which the daemon sends once a producer is ready."""
        try:
            with self._busy:
                while self.session.state != "open":
                    self._step(self._deadline)
            self._log_wait = None
        except BaseException:
            self.close()
            raise

    def seek(self, epoch: int, position: int) -> None:
        """Open again at another place; not on a shared stream."""
        deadline = self.clock.now() + self.timeout_s
        with self._busy:
            self._perform(self.session.seek(epoch, position))
            while self.session.state != "open":
                self._step(deadline)

    def next(self) -> Deliver | PassEnded | SessionDetached:
        """Wait for the next batch, or the end of the epoch, or of the session."""
        began, deadline = time.monotonic(), self.clock.now() + self.timeout_s
        with self._busy:
            self._flush()
            while True:
                for outcome in self._step(deadline):
                    if isinstance(outcome, Deliver | PassEnded | SessionDetached):
                        self.session.waited_us += round(1e6 * (time.monotonic() - began))
                        return outcome

    def is_ready(self) -> bool:
        """Say whether a batch or the epoch's end has arrived; `next` handles what was read."""
        if self.is_closed or os.getpid() != self.pid:
            return False
        with self._busy:
            self._flush()
            self._early = self._early or self._dealer.receive()
            if self._early is None:
                return False
            first = codec.decode_to_client(self._early[0])
            return isinstance(first, msg.BatchMessage | msg.EpochEnd)

    def paths(self, dataset: str, digest: str, ids: Sequence[int]) -> list[bytes]:
        """Ask the daemon for the paths of samples, over another connection."""
        status_client = StatusClient.beside(self.address, self._curve, self.timeout_s)
        try:
            return status_client.paths(dataset, digest, ids)
        finally:
            status_client.close()

    def check_slots(self) -> None:
        """Raise BatchesHeld when the caller holds every slot, so that no batch can come."""
        session = self.session
        if session.num_held < session.num_slots:
            return
        gc.collect()  # a batch in a reference cycle holds its slot for nothing
        self.release_pending()
        if session.num_held == session.num_slots:
            limit, name = session.spec.prefetch, "prefetch"
            if session.share is not None and session.share.max_lag is not None:
                limit, name = session.share.max_lag, "max_lag"
            raise BatchesHeld(
                f"all {session.num_slots} batches that this stream can hand out are still held, so "
                "no other can come: copy what you keep (batch.images.copy()), call "
                f"batch.release(), or connect with {name} > {limit}"
            )

    def check_usable(self) -> None:
        """Raise when the stream was closed, or is used in another process."""
        if self.is_closed:
            raise StreamClosed("the stream was closed; connect again")
        if os.getpid() != self.pid:
            raise ConnectError(
                f"this stream was connected in process {self.pid} and is used in process "
                f"{os.getpid()}: sockets do not cross a fork; connect in the process that reads"
            )

    def _step(self, deadline: float) -> list[Outcome]:
        """Handle one message; wait for it if need be."""
        frames, self._early = self._early or self._dealer.receive(), None
        while frames is None:
            self._wait(deadline)
            frames = self._dealer.receive()
        message = codec.decode_to_client(frames[0])
        if isinstance(message, msg.Opened) and len(frames) > 1:
            self._on_opened(message, frames[1])
        if isinstance(message, msg.Error) and message.code == "PROTOCOL_STATE":
            # Sent to the unknown peer as which ZeroMQ has reconnected.
            self._check_connected()
        outcomes = self.session.handle(message)
        self._perform(outcomes, deadline)
        return outcomes

    def _wait(self, deadline: float) -> None:
        left_s = deadline - self.clock.now()
        if left_s <= 0:
            raise ConnectError(self._late())
        if self.session.state == "greeting":
            # No lifeline exists yet that would tell of a daemon's death: check the address.
            left_s = min(left_s, _LOOK_AGAIN_S)
            require_daemon(self.address)
        if self._log_wait is not None:
            left_s = min(left_s, self._log_wait())
        ready = self._poller.wait(0.0 if self._dealer.has_ended() else left_s)
        self._dealer.check_handshake(is_new=self.session.state == "greeting")
        if self._dealer.has_ended() or ("memory" in ready and self._has_memory_ended()):
            if not self._poller.wait_for(self._dealer, _LAST_WORDS_S):
                raise self._lost()
        elif "memory" in ready:
            # The lifeline holds an arena that waits for its OPENED: watch the socket alone.
            self._poller.wait_for(self._dealer, min(left_s, _LOOK_AGAIN_S))

    def _has_memory_ended(self) -> bool:
        assert self._slots_memory is not None
        return self._slots_memory.has_ended()

    def _check_connected(self) -> None:
        if self._dealer.has_ended():
            raise self._lost()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(
            f"the daemon at {self.address} ended, or the connection to it. "
            "Batches that you hold stay readable."
        )

    def _late(self) -> str:
        if self.session.state == "greeting":
            return f"{no_daemon(self.address)} (no answer for {self.timeout_s:g} s)"
        return (
            f"nothing came from the daemon at {self.address} for {self.timeout_s:g} s in state "
            f"{self.session.state!r}: {self._ask_why()}; see its output, or connect with a larger "
            "timeout_s"
        )

    def _ask_why(self) -> str:
        """Ask the daemon, over another connection, why no batch comes."""
        try:
            status_client = StatusClient.beside(self.address, self._curve, _WHY_S)
            try:
                return describe_standstill(status_client.status())
            finally:
                status_client.close()
        except AugdError:
            return "it did not answer a STATUS either: it may hang, or be overloaded"

    def _perform(self, outcomes: list[Outcome], deadline: float = 0.0) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Attach):
                self._slots_memory = self._attach(outcome)
                self._slots_memory.watch(self._poller, "memory")
                self._perform(self.session.attached())
            elif isinstance(outcome, Deliver):
                assert self._slots_memory is not None
                began = time.monotonic()
                try:
                    self._slots_memory.fetch(outcome.batch, deadline)
                finally:
                    spent_s = time.monotonic() - began
                    self.fetch_s += spent_s
                    self.session.fetch_us += round(1e6 * spent_s)
            elif isinstance(outcome, msg.Message):
                self._dealer.send(codec.encode(outcome))

    def _attach(self, attach: Attach) -> Slots:
        if self.session.transport == "memfd":
            lifeline = Lifeline(attach.path, attach.session, attach.token, self.timeout_s)
            return SharedSlots(lifeline)
        bulk = bulk_address(self.address, attach.bulk_port)
        return FramedSlots(bulk, attach.session, attach.token, self._curve, self.clock)

    def _on_opened(self, opened: msg.Opened, classes: bytes) -> None:
        if opened.stream == self._mapped_stream or opened.opening != self.session.opening:
            return
        assert self._slots_memory is not None
        self.classes = codec.decode_names(classes)
        self.arena = whole = self._slots_memory.open(opened)
        step = opened.slot_bytes
        self.slots = [whole[at : at + step] for at in range(0, len(whole), step)]
        self._mapped_stream = opened.stream

    def release(self, slot: int, generation: int) -> None:
        """Give a slot back; safe in any thread, in finalizers and after `close`."""
        self._released.append((slot, generation))
        if self.is_closed or os.getpid() != self.pid:
            return
        if self._busy.acquire(blocking=False):
            try:
                self._flush()
            finally:
                self._busy.release()
            self._close_if_left()

    def release_pending(self) -> None:
        """Send what finalizers queued while the socket was in use."""
        with self._busy:
            self._flush()

    def _flush(self) -> None:
        while self._released:
            slot, generation = self._released.popleft()
            self._perform(self.session.release(slot, generation))

    def leave(self) -> None:
        """Stop reading; of a shared stream, stay until what is held was released.

        The other sharers go on. Without this session the daemon would refill the held slots.
        """
        if self.session.share is None or self.is_closed or os.getpid() != self.pid:
            self.close()
            return
        with self._busy:
            self._flush()
            self._perform(self.session.leave())
            self._is_leaving = True
        self._close_if_left()

    def _close_if_left(self) -> None:
        if self._is_leaving and not self.session.num_held:
            self.close()

    def close(self) -> None:
        """Send BYE and close; the arena stays mapped while batches are held."""
        if self.is_closed:
            return
        self.is_closed = True
        if os.getpid() != self.pid:
            return
        with self._busy:
            self._perform(self.session.close())
            if self._slots_memory is not None:
                self._slots_memory.close()
            self._dealer.close()
            self.slots = []
            self.arena = memoryview(b"")
