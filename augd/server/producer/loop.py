"""A producer's loop: it receives messages from its daemon and sends finished leases.

Runs in the producer's process. It has one inherited link to its daemon. It gives leases to its
lease runner and reports each when it is done.

Invariants: it decides nothing, its state can be recomputed, and it may be killed at any
instruction. It waits for the link only.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from contextlib import suppress
from typing import Literal

from augd.dataset.index_arrays import ChoiceArrays
from augd.errors import DatasetError, PluginFailed, RecipeError, StoreError
from augd.pixels import native
from augd.pixels.library_versions import describe_environment
from augd.plan.recipe.op_catalogue import Catalogue
from augd.protocol import messages as msg
from augd.protocol.codec import decode_to_producer, encode
from augd.protocol.digest_sums import write_digest, write_ids_digest
from augd.server.producer.decoded_cache import PixelCache
from augd.server.producer.lease_runner import LeaseFailed, LeaseRunner, OpenOwn
from augd.transport import unix_link
from augd.transport.arena import map_arena
from augd.transport.current_sample import CurrentSample
from augd.transport.fetch_client import FetchClient, fetch_patience_s

_ALIVE_EVERY_NS = 1_000_000_000
_FAIL_TEXT_MAX = 4000
_Code = Literal["INTERNAL", "BAD_RECIPE", "PLUGIN_FAILED"]


class ProducerLoop:
    """The loop of a producer process."""

    def __init__(
        self,
        daemon: socket.socket,
        current_sample: CurrentSample,
        confinement: str,
        catalogue: Catalogue,
        open_own: OpenOwn | None = None,
        fetch_fds: tuple[int, int] | None = None,
    ) -> None:
        """Take over the link.

        Args:
            daemon: the link to the daemon.
            current_sample: shared memory that names the sample in work.
            confinement: which limits hold for this process; READY reports it.
            catalogue: the ops of recipes.
            open_own: opens the own source of a dataset, by its name.
            fetch_fds: socket and memory of the fetch channel, if a dataset is in an object store.
        """
        self._daemon = daemon
        self._confinement = confinement
        self._environment = {**describe_environment(), **catalogue.environment}
        self._lease_runner = LeaseRunner(self._stay_alive, current_sample, catalogue, open_own)
        if fetch_fds is not None:
            wait = self._lease_runner.stay_alive
            self._lease_runner.use_fetch_channel(FetchClient(*fetch_fds, fetch_patience_s(), wait))
        self._cache: PixelCache | None = None
        # Streams whose recipe an own op rejects, or whose own source cannot be used: code, text.
        self._refused: dict[int, tuple[_Code, str]] = {}
        self._is_draining = False
        self._spoke_at_ns = time.monotonic_ns()
        self._idle_ns = 0

    def run(self) -> None:
        """Send READY and work until drained.

        Raises:
            EOFError: the daemon closed the link.
        """
        if native.trouble:
            self._say(msg.Trouble(native.trouble[:_FAIL_TEXT_MAX]))
        self._say(msg.Ready(os.getpid(), self._environment, self._confinement))
        while not self._is_draining:
            self._listen()
            if len(self._lease_runner) and not self._is_draining:
                self._work()

    def _listen(self) -> None:
        """Receive all messages that have arrived; wait for one if there is no lease."""
        while not self._is_draining:
            wait = not len(self._lease_runner)  # nothing accepted, nothing queued
            before_ns = time.monotonic_ns()
            received = unix_link.receive(self._daemon, wait=wait)
            if wait:
                self._idle_ns += time.monotonic_ns() - before_ns
            if received is None:
                self._lease_runner.begin()
                return
            frame, fds = received
            try:
                self._obey(decode_to_producer(frame), fds)
            finally:
                for fd in fds:
                    os.close(fd)

    def _obey(self, message: msg.ToProducer, fds: list[int]) -> None:
        """Do what a message says; the caller closes its fds."""
        lease_runner = self._lease_runner
        match message:
            case msg.Lease():
                self._accept(message)
            case msg.Revoke(leases):
                for lease in lease_runner.revoke(set(leases)):
                    self._say(msg.Dropped(lease))
            case msg.CacheMessage() | msg.Room():
                self._use_cache(message, fds)
            case msg.DatasetMessage(name, root):
                lease_runner.use_dataset(name, root, *fds)
            case msg.StreamMessage():
                self._use_stream(message, fds)
            case msg.Mask(stream):
                if stream not in self._refused:
                    lease_runner.mask(message)
            case msg.Drop(stream):
                self._refused.pop(stream, None)
                lease_runner.drop_stream(stream)
            case msg.Drain():
                self._is_draining = True

    def _accept(self, lease: msg.Lease) -> None:
        if lease.stream in self._refused:
            code, text = self._refused[lease.stream]
            self._say(msg.Fail(lease.lease, text, code))
        else:
            self._lease_runner.accept(lease)

    def _use_cache(self, message: msg.CacheMessage | msg.Room, fds: list[int]) -> None:
        if isinstance(message, msg.CacheMessage):
            with suppress(ValueError):  # its file was truncated: rows are made without it
                self._cache = PixelCache(fds[0], message)
                self._lease_runner.use_cache(self._cache)
        elif self._cache is not None:
            self._cache.add_room(message)

    def _use_stream(self, message: msg.StreamMessage, fds: list[int]) -> None:
        arena = map_arena(fds[0], message.slot_bytes * message.num_slots)
        try:
            self._lease_runner.use_stream(message, arena, _choice_of(message, fds))
        except RecipeError as error:  # by a check that the daemon cannot make
            self._refused[message.stream] = "BAD_RECIPE", str(error)[-_FAIL_TEXT_MAX:]
        except PluginFailed as error:
            self._refused[message.stream] = "PLUGIN_FAILED", str(error)[:_FAIL_TEXT_MAX]
        except DatasetError as error:
            self._refused[message.stream] = "INTERNAL", str(error)[:_FAIL_TEXT_MAX]

    def _work(self) -> None:
        before_ns, cpu_before_ns = time.monotonic_ns(), time.thread_time_ns()
        try:
            made = self._lease_runner.make_next()
        except LeaseFailed as failed:
            self._say(_fail(failed))
            return
        done = msg.Done(
            lease=made.lease,
            num_bad=made.num_bad,
            bad=made.bad,
            digest=write_digest(made.digest),
            ids_digest=write_ids_digest(made.ids_digest),
            busy_ns=time.monotonic_ns() - before_ns,
            plan_ns=self._lease_runner.plan_ns,
            idle_ns=self._idle_ns,
            hits=made.hits,
            misses=made.misses,
            cpu_ns=time.thread_time_ns() - cpu_before_ns,
            readers_added=self._lease_runner.readers_added,
        )
        self._lease_runner.plan_ns = self._idle_ns = 0
        self._say(done)
        for news in self._lease_runner.cache_news():
            self._say(news)

    def _stay_alive(self, lease: msg.Lease) -> None:
        if time.monotonic_ns() - self._spoke_at_ns > _ALIVE_EVERY_NS:
            self._say(msg.Alive(lease.lease))

    def _say(self, message: msg.Message) -> None:
        self._spoke_at_ns = time.monotonic_ns()
        if not unix_link.send(self._daemon, encode(message)):
            raise EOFError("the daemon is gone")


def _fail(failed: LeaseFailed) -> msg.Fail:
    """Make the FAIL of a lease. The text of a plug-in's failure begins with its own words."""
    cause = failed.__cause__
    assert cause is not None
    if isinstance(cause, StoreError):
        return msg.Fail(failed.lease, str(cause)[:_FAIL_TEXT_MAX], "STORE_FAILED")
    if isinstance(cause, PluginFailed):
        from augd.plugins.ops import tell  # is loaded already if there are plug-ins

        return msg.Fail(failed.lease, tell(cause)[:_FAIL_TEXT_MAX], "PLUGIN_FAILED")
    text = "".join(traceback.format_exception(cause, limit=-4))
    return msg.Fail(failed.lease, text.strip()[-_FAIL_TEXT_MAX:])


def _choice_of(use: msg.StreamMessage, fds: list[int]) -> ChoiceArrays | None:
    """Map the list of a stream's samples; None if the stream has all samples."""
    if use.chosen is None:
        return None
    chosen = use.chosen
    return ChoiceArrays(fds[1], chosen.num_samples, chosen.num_groups, chosen.num_picked)
