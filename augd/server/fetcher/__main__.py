"""The program of the fetcher: `augd.server.fetcher LINK_FD DAEMON_PID [CACHE]`.

It reads ranges of shards from object stores for the producers of one daemon, or of one relay. Only
the fetcher has the network and the credentials, and it decodes no image; producers decode images
and have neither. A producer can request ranges of the shards that the daemon named, and nothing
else: no address comes from a producer. The bytes go into memory that each producer shares with the
fetcher (`transport/fetch_client.py`).

One thread reads the links, and a pool of threads waits for the store. The fetcher never waits for a
producer. It may be killed at any instruction: producers repeat their requests to the next one.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from msgspec import MsgspecError

from augd.dataset.index_format import read_index_header
from augd.dataset.stores.object_store import patience_s
from augd.dataset.stores.range_reader import BUFFER_SLOT_BYTES
from augd.dataset.stores.shard_cache import ShardCache
from augd.dataset.stores.shard_ranges import RemoteShards
from augd.errors import AugdError
from augd.process.command import say
from augd.process.parent_death import die_with
from augd.protocol import fetch_messages as said
from augd.transport import unix_link

AT_ONCE: Final = 64
"""Requests to stores in flight."""

_TEXT_MAX: Final = 1000


@dataclass(slots=True)
class _FetchChannel:
    """The fetcher's end of a fetch channel; `request_ids` has the last one of each buffer slot."""

    socket: socket.socket
    fetch_buffer_fd: int
    fetch_buffer_bytes: int
    request_ids: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_closed: bool = False
    num_working: int = 0
    busy: set[int] = field(default_factory=set)  # buffer slots

    def say(self, note: said.FromFetcher) -> None:
        """Send a message, if the channel is open."""
        with self.lock:
            if not self.is_closed:
                unix_link.send(self.socket, said.encode(note))


@dataclass(slots=True, eq=False)
class _Job:
    """One request; it is done when no piece is left."""

    fetch_channel: _FetchChannel
    ask: said.Ask
    shards: RemoteShards
    began: float
    left: int
    failure: str = ""


class Fetcher:
    """The fetcher's loop."""

    def __init__(self, daemon: socket.socket, blocks: ShardCache | None) -> None:
        self._daemon = daemon
        self._blocks = blocks
        self._patience_s = patience_s()
        self._sets: dict[str, RemoteShards] = {}
        self._fetch_channels: dict[int, _FetchChannel] = {}
        self._poll = select.poll()
        self._poll.register(daemon, select.POLLIN)
        self._pool = ThreadPoolExecutor(AT_ONCE, "fetch")
        self._lock = threading.Lock()
        self._last_failure = ""

    def run(self) -> None:
        """Serve requests.

        Raises:
            EOFError: the daemon closed the link.
        """
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._daemon.fileno():
                    self._obey()
                elif fd in self._fetch_channels:
                    self._serve(self._fetch_channels[fd])

    def _obey(self) -> None:
        received = unix_link.receive(self._daemon, wait=True)
        assert received is not None
        frame, fds = received
        note = said.decode_to_fetcher(frame)
        if isinstance(note, said.UseDataset):
            try:
                header, _ = read_index_header(fds[0])
            finally:
                os.close(fds[0])
            self._sets[note.name] = RemoteShards(header.source, header.shards, self._blocks)
            return
        end = socket.socket(fileno=fds[0])
        end.setblocking(False)
        fetch_channel = _FetchChannel(end, fds[1], note.fetch_buffer_bytes)
        self._fetch_channels[end.fileno()] = fetch_channel
        self._poll.register(end, select.POLLIN)
        fetch_channel.say(said.Resend())

    def _serve(self, fetch_channel: _FetchChannel) -> None:
        """Receive a producer's requests; a malformed one closes its channel."""
        try:
            for _ in range(said.BUFFER_SLOTS_MAX):  # then other producers are served
                received = unix_link.receive(fetch_channel.socket, wait=False)
                if received is None:
                    break
                for fd in received[1]:
                    os.close(fd)
                self._take(fetch_channel, said.decode_ask(received[0]))
        except (EOFError, OSError, MsgspecError, ValueError):
            self._poll.unregister(fetch_channel.socket)
            del self._fetch_channels[fetch_channel.socket.fileno()]
            with fetch_channel.lock:
                fetch_channel.is_closed = True
                fetch_channel.socket.close()
                if not fetch_channel.num_working:
                    os.close(fetch_channel.fetch_buffer_fd)

    def _take(self, fetch_channel: _FetchChannel, ask: said.Ask) -> None:
        """Begin a request. Raises ValueError if it is invalid."""
        if ask.request_id <= fetch_channel.request_ids.get(ask.buffer_slot, -1):
            return  # a repeated request that was received the first time, too
        shards = self._sets.get(ask.dataset)
        is_sound = (
            shards is not None
            and sum(size for _, _, size, _ in ask.pieces) <= BUFFER_SLOT_BYTES
            and all(
                shards.holds(shard, first, size) and at + size <= fetch_channel.fetch_buffer_bytes
                for shard, first, size, at in ask.pieces
            )
        )
        with fetch_channel.lock:
            if shards is None or not is_sound or ask.buffer_slot in fetch_channel.busy:
                raise ValueError("a range outside of the shards, or two requests in one slot")
            fetch_channel.request_ids[ask.buffer_slot] = ask.request_id
            fetch_channel.busy.add(ask.buffer_slot)
            fetch_channel.num_working += 1
        job = _Job(fetch_channel, ask, shards, time.monotonic(), len(ask.pieces))
        for piece in ask.pieces:
            self._pool.submit(self._read, job, piece)

    def _read(self, job: _Job, place: tuple[int, int, int, int]) -> None:
        shard, first, size, at = place
        failure = job.failure  # of another piece: then this one is not needed
        try:
            if not failure and not job.fetch_channel.is_closed:
                if time.monotonic() - job.began > self._patience_s:
                    failure = self._last_failure or (
                        f"the store is too slow: a range was queued for {self._patience_s:g} s. "
                        "Use fewer producers, or a shard cache."
                    )
                else:
                    content = job.shards.read(shard, first, size)
                    _write(job.fetch_channel.fetch_buffer_fd, content, at)
        except AugdError as error:
            failure = self._last_failure = str(error)[:_TEXT_MAX]
        except Exception as error:  # otherwise its producer would wait until its deadline
            failure = f"reading the store failed: {error!r}"[:_TEXT_MAX]
        with self._lock:
            job.left -= 1
            job.failure = job.failure or failure
            if job.left:
                return
        self._finish(job)

    def _finish(self, job: _Job) -> None:
        fetch_channel, ask = job.fetch_channel, job.ask
        with fetch_channel.lock:
            fetch_channel.busy.discard(ask.buffer_slot)
            fetch_channel.num_working -= 1
            if fetch_channel.is_closed:
                if not fetch_channel.num_working:
                    os.close(fetch_channel.fetch_buffer_fd)
                return
        if job.failure:
            fetch_channel.say(said.Refused(ask.buffer_slot, ask.request_id, job.failure))
        else:
            fetch_channel.say(said.Filled(ask.buffer_slot, ask.request_id))


def _write(fd: int, content: bytes | memoryview, at: int) -> None:
    left = memoryview(content)
    while left:
        written = os.pwrite(fd, left, at)
        left, at = left[written:], at + written


def main(link_fd: int, daemon_pid: int, cache: str = "") -> int:
    """Serve requests until the daemon ends; returns the exit status."""
    die_with(daemon_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Fetcher(socket.socket(fileno=link_fd), ShardCache.open(cache) if cache else None).run()
    except EOFError:
        return 0
    except AugdError as error:
        say(f"augd: the process that reads the store: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
