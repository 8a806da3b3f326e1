"""The broker: one pure state machine that decides everything the daemon does.

`handle(event, now)` takes what happened and returns what has to be done; the daemon's loop
(augd/server/daemon/loop.py) only carries events in and actions out. The broker does no I/O, knows
no clock but the `now` that it is given, and touches no pixel.

Theory of operation. The bytes of a batch do not depend on the broker: a batch is a pure function of
(content, layout, quarantine, epoch, position). So anything lost is recomputed. The broker
guarantees order, exactly-once delivery per opening, and that no process writes memory which another
one reads:

1. Credits are absolute numbers, checked when a batch is begun and again when it is sent.
2. A slot is reused only after its clients released it, or are proven dead. Every lease on it must
be answered too, or its producer reaped.
3. Every message that names a session, an opening, a lease or a generation that is not the current
   one is stale: ignored and counted, never an error.
4. After each event `_settle` sends, begins and leases all that has become possible, so no event
   needs to know what it made possible. DONE, FLOW and RELEASE are settled for their own stream
   only. All streams are settled on any other event, and every 50 ms. So many streams do not slow
   each other down.

It has two halves. augd/server/daemon/broker/sessions.py talks to clients;
augd/server/daemon/broker/scheduler.py makes batches. Producers on other hosts join through
augd/server/daemon/broker/remote_producers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.protocol import messages as msg
from augd.protocol.dashboard_messages import Seen
from augd.protocol.permissions import Rights
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker import permissions
from augd.server.daemon.broker.cache_allocator import CacheAllocator
from augd.server.daemon.broker.dataset_facts import DaemonHistory, DatasetFacts
from augd.server.daemon.broker.outbox import ERROR, ERROR_TEXT_MAX, INFO, Outbox
from augd.server.daemon.broker.producers import PATIENCE_S, REAP_S
from augd.server.daemon.broker.remote_producers import RemoteProducerTable, RowTarget
from augd.server.daemon.broker.scheduler import Scheduler
from augd.server.daemon.broker.sessions import SessionTable
from augd.server.daemon.broker.snapshot import (
    batch_in_hand,
    describe_batch,
    describe_dataset,
    describe_made,
    describe_producer,
    describe_stream,
    shorten,
)
from augd.server.daemon.broker.stream import StreamState

DRAIN_S = 5.0
_SETTLE_ALL_S = 0.05


class Broker:
    """Events in, actions out. See the module's theory of operation."""

    def __init__(
        self,
        instance: str,
        attach: str,
        datasets: Mapping[str, DatasetFacts],
        num_producers: int,
        bulk_port: int = 0,
        secret: str = "",
        patience_s: float = PATIENCE_S,
        catalogue: Catalogue = BUILT_IN,
        cache: CacheAllocator | None = None,
        rows_port: int = 0,
        producers_max: int = 0,
        pid: int = 0,
        life: DaemonHistory = DaemonHistory(),  # noqa: B008 - frozen
    ) -> None:
        """Start with no session and every producer due at the first event.

        Args:
            instance: random per daemon start; every client is told it.
            attach: path of the UNIX socket that clients are told to attach to.
            datasets: by name, as the operator named them.
            num_producers: places to keep filled.
            bulk_port: TCP port of the bulk socket, if there is one.
            secret: random, at most 64 characters, sent nowhere: it keys the sessions' tokens.
            patience_s: a producer that is silent for longer while it has leases hangs.
            catalogue: the ops that recipes may name.
            cache: allocates the cache of decoded images, if there is one.
            producers_max: autoscale between 1 and so many producers; 0 keeps `num_producers`.
            pid: of the daemon, reported in STATUS.
            rows_port: TCP port of the socket for remote producers' rows, if there is one.
            life: which daemons died before this one.
        """
        self._life = life
        self._instance = instance
        self._pid = pid
        self._datasets = dict(datasets)
        self._outbox = Outbox()
        self._scheduler = Scheduler(
            *(self._outbox, num_producers, self._datasets, patience_s, catalogue, cache)
        )
        self._sessions = SessionTable(
            *(self._outbox, self._scheduler, self._datasets, instance, attach, bulk_port, secret),
            catalogue,
        )
        self._scheduler.producers_max = producers_max
        self._remotes = RemoteProducerTable(
            self._outbox, self._scheduler, self._datasets, rows_port, secret
        )
        self._settle_all_at = 0.0  # when all streams are settled again, whatever the event
        self._drain_ends_at: float | None = None
        self._has_killed = False
        self._is_stopped = False

    def handle(self, event: ev.Event, now: float) -> list[ev.Action]:
        """Handle one event at time `now` (seconds, monotonic) and return what is to be done."""
        self._outbox.now = now
        streams = self._streams_of(event)
        match event:
            case ev.FromPeer(peer, message, rights):
                self._from_peer(peer, message, rights)
            case ev.FromLocalProducer(number, message):
                self._scheduler.heard(number, message)
            case ev.FromRemoteProducer(number, message):
                self._remotes.heard(number, message, is_draining=self._is_draining)
            case ev.Reaped():
                self._scheduler.reaped(event, is_draining=self._is_draining)
            case ev.RemoteProducerAttached(number, token):
                self._remotes.attached(number, token)
            case ev.RemoteProducerGone(number, why):
                self._remotes.gone(number, why, is_draining=self._is_draining)
            case ev.CacheFull(reason):
                self._scheduler.cache_full(reason)
            case ev.DrainAsked(why):
                self._drain(why)
            case ev.Tick():
                pass
            case _:
                self._session_event(event)
        self._settle(streams)
        return self._outbox.take()

    def _session_event(self, event: ev.SessionEvent) -> None:
        """Handle an event of a client's connections, or of a stream that is being opened."""
        match event:
            case ev.PeerAttached(number, token, is_framed):
                self._sessions.attached(number, token, is_framed=is_framed)
            case ev.PeerUnreachable(number):
                self._sessions.unreachable(number)
            case ev.PeerGone(number):
                self._sessions.close(number)
            case ev.RightsChanged(name, text):
                self._sessions.rights_changed(name, text)
                self._remotes.rights_changed(name, text)
            case ev.SamplesSelected(number, chosen, num_unlabelled):
                self._sessions.opener.selected(number, chosen, num_unlabelled)
            case ev.SelectionFailed(number, code, text):
                self._sessions.opener.select_failed(number, code, text)
            case ev.ArenaMade(number):
                self._sessions.arena_made(number)
            case ev.ArenaFailed(number, reason):
                self._sessions.arena_failed(number, reason)

    def _streams_of(self, event: ev.Event) -> list[StreamState] | None:
        """List the streams for which an event may make something possible; None for all."""
        if self._outbox.now >= self._settle_all_at:
            return None
        stream = None
        match event:
            case ev.FromLocalProducer(number, msg.Done(lease)) | ev.FromRemoteProducer(
                number, msg.Done(lease)
            ):
                stream = self._scheduler.stream_of(number, lease)
            case ev.FromPeer(_, msg.Flow(session) | msg.Release(session)):
                stream = self._sessions.stream_of(session)
            case ev.FromLocalProducer(_, msg.Alive() | msg.LastWords() | msg.Cached()):
                pass
            case ev.FromRemoteProducer(_, msg.Alive() | msg.LastWords() | msg.Beat()):
                pass
            case _:
                return None
        return [] if stream is None else [stream]

    @property
    def _is_draining(self) -> bool:
        return self._drain_ends_at is not None

    def next_deadline(self) -> float | None:
        """Return when `handle` wants a Tick at the latest; None when nothing is due by itself."""
        moments = (
            self._scheduler.pool.next_deadline(),
            self._sessions.next_deadline(),
            self._scheduler.autoscaler.next_look() if self._scheduler.producers_max else None,
            self._drain_ends_at,
        )
        return min((moment for moment in moments if moment is not None), default=None)

    def admits(self, number: int, token: str, *, is_framed: bool) -> bool:
        """Say whether an ATTACH is the session's; see `SessionTable.admits`."""
        return self._sessions.admits(number, token, is_framed=is_framed)

    def admits_remote(self, number: int, token: str) -> bool:
        """Say whether an ATTACH is a joined producer's; see `RemoteProducerTable.admits`."""
        return self._remotes.admits(number, token)

    def has_leased(self, number: int, lease: int) -> bool:
        """Say whether a producer has this lease, also a revoked one that it has not answered."""
        producer = self._scheduler.pool.members.get(number)
        return producer is not None and lease in producer.leases

    def target(self, number: int, lease: int) -> RowTarget | None:
        """Return where a remote producer's rows belong; None when it has no such lease."""
        return self._remotes.target(number, lease)

    def _from_peer(self, peer: bytes, message: msg.FromClient, rights: Rights | None) -> None:
        match message:
            case msg.Hello() | msg.Join() if self._is_draining:
                text = "the daemon is draining; start it again"
                self._outbox.send(peer, msg.Error("DRAINING", text))
            case msg.Join():
                self._remotes.join(peer, message, rights)
            case msg.Hello():
                self._sessions.hello(peer, message, rights)
            case msg.Status():
                sessions = self._sessions.sessions.values()
                seen = permissions.seen_by(rights, self.snapshot(), sessions)
                self._outbox.send(peer, msg.StatusReply(shorten(seen)))
            case msg.Paths():
                self._sessions.ask_paths(peer, message, rights)
            case msg.Ping():
                self._outbox.send(peer, msg.Pong())
            case msg.Open() | msg.Flow() | msg.Release() | msg.Bye():
                self._sessions.heard(peer, message, rights)

    def _settle(self, streams: list[StreamState] | None) -> None:
        """Send, begin and lease all that is possible for these streams; None settles all."""
        self._sessions.report_failures()
        self._scheduler.kill_hanging()
        if self._drain_ends_at is not None:
            self._settle_drain(self._drain_ends_at)
            return
        if streams is None:
            self._scheduler.autoscale()
        self._scheduler.start_due()
        if streams is None:
            self._settle_all_at = self._outbox.now + _SETTLE_ALL_S
            streams = list(self._scheduler.streams.values())
            self._sessions.close_unattached()
        self._sessions.settle(streams)
        for stream in streams:
            stream.plan_ahead(self._scheduler.pool.num_ready)
        self._scheduler.lease_assigner.assign()

    def _drain(self, why: str) -> None:
        if self._drain_ends_at is not None:
            return
        self._drain_ends_at = self._outbox.now + DRAIN_S
        self._outbox.log(INFO, f"draining: {why}")
        text = f"the daemon ended ({why}); start it again and connect"
        for session in list(self._sessions.sessions.values()):
            # It names no opening: an OPEN that is on its way finds no session any more.
            error = msg.Error("DRAINING", text[:ERROR_TEXT_MAX], session.number)
            self._outbox.send(session.peer, error)
            self._sessions.close(session.number)
        self._scheduler.drain()

    def _settle_drain(self, ends_at: float) -> None:
        if self._is_stopped:
            return
        if not self._scheduler.pool.members:
            self._is_stopped = True
            self._outbox.add(ev.Stop())
        elif self._outbox.now < ends_at:
            return
        elif not self._has_killed:
            self._has_killed = True
            self._drain_ends_at = self._outbox.now + REAP_S
            self._scheduler.kill_all()
        else:  # the kernel may keep a killed process for ever: the daemon ends all the same
            self._outbox.log(ERROR, self._scheduler.describe_remaining())
            self._is_stopped = True
            self._outbox.add(ev.Stop())

    def look(self, stream: int, slot: int | None = None) -> Seen | None:
        """Describe the batch in a slot of a stream, by default the one that a client works on.

        For the dashboard, which copies rows and asks again: while the generation is the same, so
        are the bytes. None if there is no such stream, or no client holds a batch of it.
        """
        found = self._scheduler.streams.get(stream)
        if found is None or (slot is not None and not 0 <= slot < len(found.slots)):
            return None
        batch = batch_in_hand(found) if slot is None else found.slots[slot].batch
        return None if batch is None else describe_batch(found, batch)

    def snapshot(self, now: float | None = None) -> dict[str, Any]:
        """Return the broker's state as plain data, for people and benchmarks; by default now."""
        scheduler = self._scheduler
        now = self._outbox.now if now is None else now
        return {
            "instance": self._instance,
            "pid": self._pid,
            "supervisor_pid": self._life.supervisor_pid,
            "daemon_deaths": self._life.deaths,
            "last_daemon_death": self._life.last_death,
            "is_draining": self._drain_ends_at is not None,
            "is_cut": False,
            "unhealthy": scheduler.failures.unhealthy,
            "num_places": scheduler.pool.size,
            "restarts": scheduler.pool.restarts,
            "last_death": scheduler.pool.last_exit,
            "made": describe_made(scheduler.made),
            "needed_producers": scheduler.autoscaler.needed,
            "stale": dict(self._outbox.stale),
            "environment": scheduler.environment or {},
            "cache": None if scheduler.cache is None else scheduler.cache.describe(),
            "datasets": {
                name: describe_dataset(
                    facts, scheduler.failures.registers[name], scheduler.sent(name)
                )
                for name, facts in self._datasets.items()
            },
            "producers": [describe_producer(p, now) for p in scheduler.pool.members.values()],
            "streams": [
                describe_stream(stream, [one.number for one in self._sessions.on(stream)])
                for stream in scheduler.streams.values()
            ],
        }


__all__ = ["Broker", "DatasetFacts"]
