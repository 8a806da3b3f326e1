"""The producer's end of the fetch channel: ranges of remote shards, without a network.

A producer sends requests over an inherited socket pair. The fetcher
(`augd/server/fetcher/__main__.py`) writes the bytes into the fetch buffer, a sealed memfd that both
map. So no byte goes through a socket, and the fetcher never waits for a producer. The fetch buffer
is divided into slots. A reader takes a slot, requests ranges, waits until they are there, copies
them out and gives the slot back.

The daemon keeps the fetcher's end, too. The socket, with the requests in it, thus outlives a
fetcher that is killed. The next fetcher sends RESEND first, and all open requests are sent again.
A request id makes sure that a request sent twice is answered once.

Invariant: every wait ends by `patience_s`.
"""

from __future__ import annotations

import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from augd.dataset.stores.range_reader import BUFFER_SLOT_BYTES, ByteRange
from augd.errors import StoreError
from augd.process.awake_clock import Awake
from augd.protocol import fetch_messages as said
from augd.transport import unix_link
from augd.transport.fetch_buffer import FETCH_BUFFER_BYTES, NUM_BUFFER_SLOTS

LOOK_S: Final = 1.0


def fetch_patience_s() -> float:
    """Return how long to wait for an answer, time in the fetcher's queue included."""
    from augd.dataset.stores.object_store import patience_s  # loads what few producers need

    return 2 * patience_s() + 10


@dataclass(slots=True)
class _BufferSlot:
    number: int
    memory: memoryview
    request_id: int = 0
    frame: bytes | None = None  # the request, until it is answered
    failure: str | None = None
    is_late: bool = False  # its reader gave up before the answer


class FetchClient:
    """The producer's end. Several threads may send requests at once."""

    def __init__(
        self,
        socket_fd: int,
        fetch_buffer_fd: int,
        patience_s: float,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over both fds. Make it after the process is confined: it starts a thread.

        Args:
            socket_fd: the inherited socket.
            fetch_buffer_fd: the inherited memory.
            patience_s: how long to wait for an answer, restarts of the fetcher included.
            on_wait: called every second while the thread that made this waits for bytes.
        """
        self._socket = socket.socket(fileno=socket_fd)
        try:
            self._fetch_buffer = mmap.mmap(fetch_buffer_fd, FETCH_BUFFER_BYTES)
        finally:
            os.close(fetch_buffer_fd)
        whole = memoryview(self._fetch_buffer)
        self._buffer_slots = [
            _BufferSlot(
                number, whole[number * BUFFER_SLOT_BYTES : (number + 1) * BUFFER_SLOT_BYTES]
            )
            for number in range(NUM_BUFFER_SLOTS)
        ]
        self._free = list(self._buffer_slots)
        self._changed = threading.Condition()
        self._is_gone = False
        self._patience_s = patience_s
        self._on_wait = on_wait
        self._owner = threading.get_ident()
        threading.Thread(target=self._listen, name="fetch client", daemon=True).start()

    def reader(self, dataset: str) -> FetchReader:
        """Return a reader of one dataset's shards."""
        return FetchReader(self, dataset)

    @contextmanager
    def fetch(self, dataset: str, pieces: Sequence[ByteRange]) -> Iterator[memoryview]:
        """Have ranges read; see `augd.dataset.stores.range_reader.RangeReader`."""
        buffer_slot = self._take()
        try:
            self._ask(buffer_slot, dataset, pieces)
            yield buffer_slot.memory
        finally:
            with self._changed:
                if buffer_slot.frame is None:
                    self._free.append(buffer_slot)
                    self._changed.notify_all()
                else:
                    buffer_slot.is_late = True  # the fetcher may still write into it

    def _take(self) -> _BufferSlot:
        while True:
            self._wait(lambda: bool(self._free), "no slot of the fetch buffer became free")
            with self._changed:
                if self._free:  # else another thread was faster
                    return self._free.pop()

    def _ask(self, buffer_slot: _BufferSlot, dataset: str, pieces: Sequence[ByteRange]) -> None:
        base = buffer_slot.number * BUFFER_SLOT_BYTES
        places = tuple((one.shard, one.first, one.size, base + one.at) for one in pieces)
        with self._changed:
            buffer_slot.request_id += 1
            buffer_slot.failure = None
            buffer_slot.frame = said.encode(
                said.Ask(buffer_slot.number, buffer_slot.request_id, dataset, places)
            )
            unix_link.send(self._socket, buffer_slot.frame)
        self._wait(lambda: buffer_slot.frame is None, "no bytes came through the fetch channel")
        if buffer_slot.failure is not None:
            raise StoreError(buffer_slot.failure)

    def _wait(self, is_done: Callable[[], bool], what: str) -> None:
        clock = Awake()
        deadline = clock.now() + self._patience_s

        def look(left_s: float | None) -> bool:
            return self._changed.wait_for(lambda: is_done() or self._is_gone, left_s)

        while True:
            with self._changed:
                clock.wait(look, LOOK_S)
                if is_done():
                    return
                if self._is_gone:
                    raise StoreError(
                        "the process that reads the store is gone, and so is its daemon"
                    )
            if clock.now() > deadline:
                raise StoreError(
                    f"{what} within {self._patience_s:g} s: the process that reads the store "
                    "hangs, or ends repeatedly. The daemon's log says more."
                )
            if threading.get_ident() == self._owner:
                self._on_wait()

    def _listen(self) -> None:
        """Handle the fetcher's messages until both the fetcher and the daemon are gone."""
        while True:
            try:
                received = unix_link.receive(self._socket, wait=True)
                assert received is not None
                note = said.decode_from_fetcher(received[0])
            except (EOFError, OSError, msgspec.MsgspecError):
                with self._changed:
                    self._is_gone = True
                    self._changed.notify_all()
                return
            with self._changed:
                self._settle(note)

    def _settle(self, note: said.FromFetcher) -> None:
        if isinstance(note, said.Resend):
            for buffer_slot in self._buffer_slots:
                if buffer_slot.frame is not None:
                    unix_link.send(self._socket, buffer_slot.frame)
            return
        buffer_slot = self._buffer_slots[note.buffer_slot]
        if buffer_slot.frame is None or note.request_id != buffer_slot.request_id:
            return  # answered twice: by a fetcher that died, and by the next one
        buffer_slot.frame = None
        buffer_slot.failure = note.text if isinstance(note, said.Refused) else None
        if buffer_slot.is_late:
            buffer_slot.is_late = False
            self._free.append(buffer_slot)
        self._changed.notify_all()


class FetchReader:
    """Reads the shards of one dataset; see `augd.dataset.stores.range_reader.RangeReader`."""

    def __init__(self, fetch_channel: FetchClient, dataset: str) -> None:
        self._fetch_channel = fetch_channel
        self._dataset = dataset

    def fetch(self, pieces: Sequence[ByteRange]) -> AbstractContextManager[memoryview]:
        """Have ranges read."""
        return self._fetch_channel.fetch(self._dataset, pieces)

    def close(self) -> None:
        """Do nothing: the producer owns the fetch channel."""
