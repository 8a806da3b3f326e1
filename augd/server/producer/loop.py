"""A producer's loop: messages from its daemon in, finished leases out.

It talks to its daemon over one inherited link, gives leases to its workshop, and reports
each as it is done. It decides nothing, keeps nothing that matters, and may be killed at any
instruction. Never waits for anything but the link.
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
        """Take over the link; `run` says READY, and which confinement holds.

        `catalogue` are the ops of recipes, `open_own` gives own sources by their data set,
        `hatch_fds` are the socket and the memory of a fetch channel, where a data set is in a
        store.
        """
        self._daemon = daemon
        self._confinement = confinement
        self._environment = {**describe_environment(), **catalogue.environment}
        self._lease_runner = LeaseRunner(self._stay_alive, current_sample, catalogue, open_own)
        if fetch_fds is not None:
            wait = self._lease_runner.stay_alive
            self._lease_runner.use_fetch_channel(FetchClient(*fetch_fds, fetch_patience_s(), wait))
        self._cache: PixelCache | None = None
        # Streams whose recipe an own op refuses, or whose own source cannot be used: code, text.
        self._refused: dict[int, tuple[_Code, str]] = {}
        self._is_draining = False
        self._spoke_at_ns = time.monotonic_ns()
        self._idle_ns = 0

    def run(self) -> None:
        """Work until drained. Raises EOFError when the daemon is gone."""
        if native.trouble:
            self._say(msg.Trouble(native.trouble[:_FAIL_TEXT_MAX]))
        self._say(msg.Ready(os.getpid(), self._environment, self._confinement))
        while not self._is_draining:
            self._listen()
            if len(self._lease_runner) and not self._is_draining:
                self._work()

    def _listen(self) -> None:
        """Take all messages that are there; wait for one when there is nothing to do."""
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
        lease_runner = self._lease_runner
        match message:
            case msg.Lease(lease, stream) if stream in self._refused:
                code, text = self._refused[stream]
                self._say(msg.Fail(lease, text, code))
            case msg.Lease():
                lease_runner.accept(message)
            case msg.Revoke(leases):
                for lease in lease_runner.revoke(set(leases)):
                    self._say(msg.Dropped(lease))
            case msg.CacheMessage():
                with suppress(ValueError):  # somebody cut its file off: all is made without it
                    self._cache = PixelCache(fds[0], message)
                    lease_runner.use_cache(self._cache)
            case msg.Room():
                if self._cache is not None:
                    self._cache.add_room(message)
            case msg.DatasetMessage(name, root):
                lease_runner.use_dataset(name, root, *fds)
            case msg.StreamMessage():
                arena = map_arena(fds[0], message.slot_bytes * message.num_slots)
                try:
                    lease_runner.use_stream(message, arena, _choice_of(message, fds))
                except RecipeError as error:  # by a check that the daemon cannot make
                    self._refused[message.stream] = "BAD_RECIPE", str(error)[-_FAIL_TEXT_MAX:]
                except PluginFailed as error:
                    self._refused[message.stream] = "PLUGIN_FAILED", str(error)[:_FAIL_TEXT_MAX]
                except DatasetError as error:
                    self._refused[message.stream] = "INTERNAL", str(error)[:_FAIL_TEXT_MAX]
            case msg.Mask(stream):
                if stream not in self._refused:
                    lease_runner.mask(message)
            case msg.Drop(stream):
                self._refused.pop(stream, None)
                lease_runner.drop_stream(stream)
            case msg.Drain():
                self._is_draining = True

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
    """Say why a lease could not be made; of an own op, what failed comes first."""
    cause = failed.__cause__
    assert cause is not None
    if isinstance(cause, StoreError):
        return msg.Fail(failed.lease, str(cause)[:_FAIL_TEXT_MAX], "STORE_FAILED")
    if isinstance(cause, PluginFailed):
        from augd.plugins.ops import tell  # loaded by now, as there are plug-ins

        return msg.Fail(failed.lease, tell(cause)[:_FAIL_TEXT_MAX], "PLUGIN_FAILED")
    text = "".join(traceback.format_exception(cause, limit=-4))
    return msg.Fail(failed.lease, text.strip()[-_FAIL_TEXT_MAX:])


def _choice_of(use: msg.StreamMessage, fds: list[int]) -> ChoiceArrays | None:
    """Map the list of a stream's samples; None when it has all."""
    if use.chosen is None:
        return None
    chosen = use.chosen
    return ChoiceArrays(fds[1], chosen.num_samples, chosen.num_groups, chosen.num_picked)
