"""The producers on other hosts: which may join, and where their rows belong.

Theory of operation. A relay (augd/server/relay/loop.py) is a process on another host. It starts a
producer there, supervises it and exchanges messages with the daemon for it. The scheduler treats
the remote producer like any other: it gets leases and answers them, and its exit is reported with
its current sample. Three things differ:

1. JOIN must agree with the daemon on all that decides bytes: the digests of the datasets, the
   versions of the libraries, the plug-ins. An ERROR names what differs.
2. It makes rows in memory of its own, a slot per lease. The daemon copies them to the arena once
   all have arrived, while the lease is still that producer's (`target`). No other process writes
   the arena, so the leases of a lost producer go back at once. Rows that it sends too late find no
   lease.
3. It can disappear without a message. The end of its connection shows that, or missing BEATs.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from msgspec import Struct

from augd.errors import AugdError, Forbidden, OverLimit, SpecMismatch
from augd.protocol import messages as msg
from augd.protocol.limits import PLACES_MAX
from augd.protocol.permissions import Rights
from augd.protocol.slot_layout import arrays_at
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.dataset_facts import DatasetFacts
from augd.server.daemon.broker.outbox import INFO, Outbox
from augd.server.daemon.broker.producers import Producer, RemoteState
from augd.server.daemon.broker.scheduler import Scheduler

REMOTES_MAX = 4096


class RowTarget(Struct, frozen=True):
    """Where the rows of a lease belong: the arena, the slot's offset, and the rows in the slot."""

    stream: int
    slot_offset: int
    arrays: tuple[msg.ArraySpec, ...]
    first_row: int
    rows: int


class RemoteProducerTable:
    """The producers that join from other hosts; the scheduler's pool holds them."""

    def __init__(
        self,
        outbox: Outbox,
        scheduler: Scheduler,
        datasets: Mapping[str, DatasetFacts],
        rows_port: int,
        secret: str,
    ) -> None:
        self._outbox = outbox
        self._scheduler = scheduler
        self._datasets = datasets
        self._rows_port = rows_port
        self._secret = secret.encode()
        self._next_number = PLACES_MAX

    def members(self) -> list[tuple[Producer, RemoteState]]:
        """List the remote producers."""
        pool = self._scheduler.pool.members.values()
        return [(one, one.remote) for one in pool if one.remote is not None]

    # joining

    def join(self, peer: bytes, join: msg.Join, rights: Rights | None) -> None:
        """Answer JOIN with a number, or with the ERROR that says what differs."""
        if self._scheduler.environment is None and self._scheduler.pool.size:
            text = "the daemon's own producers have not reported their libraries yet"
            self._outbox.send(peer, msg.Error("PROTOCOL_STATE", text, is_retryable=True))
            return
        try:
            self._check(join, rights)
        except AugdError as error:
            self._outbox.send(peer, msg.Error(error.code, str(error)))
            self._outbox.log(INFO, f"a producer on {join.host} was rejected: {error}")
            return
        number, self._next_number = self._next_number, self._next_number + 1
        token = hashlib.blake2b(
            f"producer {number}".encode(), key=self._secret, digest_size=16
        ).hexdigest()
        now = self._outbox.now
        producer = Producer(number, now, now, pid=join.pid, confinement=join.confinement)
        producer.remote = RemoteState(join.host or "?", token, rights, now)
        self._scheduler.pool.add(producer)
        self._scheduler.environment = self._scheduler.relevant(join.environment)
        self._outbox.send(peer, msg.Joined(number, token, self._rows_port))

    def _check(self, join: msg.Join, rights: Rights | None) -> None:
        if rights is not None and not rights.may_produce:
            raise Forbidden(
                f"{rights.name!r} may not produce: the daemon's operator allows it by "
                "`produce = true` in its file, "
                "or makes another key with `augd keys new NAME --produce`"
            )
        pool = self._scheduler.pool
        if len(pool.members) - pool.size >= REMOTES_MAX:
            raise OverLimit(f"{REMOTES_MAX} remote producers are here, which is the limit")
        for name in sorted(self._datasets.keys() | join.datasets.keys()):
            self._check_dataset(name, join.datasets.get(name))
        environment = self._scheduler.relevant(join.environment)
        expected = self._scheduler.expected_environment(environment)
        for name in sorted(expected.keys() | environment.keys()):
            there, here = environment.get(name, "absent"), expected.get(name, "absent")
            if there != here:
                raise SpecMismatch(
                    f"{name}: expected {here} as the daemon's other producers have it, got {there} "
                    f"on {join.host}; install the same versions and plug-ins on both hosts"
                )

    def _check_dataset(self, name: str, digest: str | None) -> None:
        if name not in self._datasets:
            raise SpecMismatch(f"dataset {name!r} is not served by this daemon: leave it out")
        expected = self._datasets[name].digest
        if digest is None:
            raise SpecMismatch(f"dataset {name!r} is missing: give it as {name}=PATH")
        if digest != expected:
            raise SpecMismatch(
                f"dataset {name!r}: expected the index digest {expected}, got {digest}: the paths "
                "below its root, the files' sizes or the labels differ, or an own source's code or "
                "digest(); copy it again"
            )

    def admits(self, number: int, token: str) -> bool:
        """Say whether an ATTACH is the first one of a producer that joined."""
        producer = self._scheduler.pool.members.get(number)
        if producer is None or producer.remote is None:
            return False
        return producer.state == "starting" and producer.remote.token == token

    def attached(self, number: int, token: str) -> None:
        """Make a producer ready whose connection for rows is attached."""
        if not self.admits(number, token):
            self._outbox.stale["attach"] += 1
            return
        producer = self._scheduler.pool.members[number]
        assert producer.remote is not None
        producer.remote.heartbeat_at = self._outbox.now
        self._scheduler.note_confinement(producer, producer.confinement)
        self._scheduler.admit(producer)
        # An empty REVOKE: there may be no lease for hours, and the relay waits for a first message.
        self._outbox.tell(number, msg.Revoke(()))
        where = f"{producer.remote.host} (pid {producer.pid})"
        self._outbox.log(INFO, f"producer {number} joined from {where}")

    # at work

    def target(self, number: int, lease: int) -> RowTarget | None:
        """Return where the rows of a lease belong; None when that producer does not have it."""
        producer = self._scheduler.pool.members.get(number)
        if producer is None or producer.remote is None or lease not in producer.leases:
            return None
        record = producer.leases[lease]
        stream, chunk = record.stream, record.chunk
        if stream.number not in self._scheduler.streams:
            return None  # its arena is gone
        offset = chunk.batch.slot.index * stream.slot_bytes
        arrays = tuple(arrays_at(stream.arrays, stream.phases, chunk.batch.epoch))
        return RowTarget(stream.number, offset, arrays, chunk.first_row, chunk.rows)

    def heard(self, number: int, message: msg.FromRelay, *, is_draining: bool) -> None:
        """Handle a message of a remote producer or its relay."""
        producer = self._scheduler.pool.members.get(number)
        if producer is None or producer.remote is None:
            self._outbox.stale["producer"] += 1
            return
        producer.remote.heartbeat_at = self._outbox.now
        match message:
            case msg.Beat(is_idle):
                if is_idle:  # the rows of its leases are made, and on their way
                    producer.heard_at = self._outbox.now
            case msg.Ended(how, kind, current_sample):
                self._outbox.add(ev.ForgetProducer(number, ""))
                event = ev.Reaped(number, how, kind, current_sample)
                self._scheduler.reaped(event, is_draining=is_draining)
            case msg.AttachMessage():
                self._outbox.stale["attach"] += 1
            case _:
                self._scheduler.heard(number, message)

    def gone(self, number: int, why: str, *, is_draining: bool) -> None:
        """Remove a producer whose connection ended."""
        producer = self._scheduler.pool.members.get(number)
        if producer is not None and producer.remote is not None:
            self._scheduler.lose_producer(producer, why, is_draining=is_draining)

    def rights_changed(self, name: str, text: str) -> None:
        """Remove the producers that joined with this key."""
        for producer, remote in self.members():
            if remote.rights is not None and remote.rights.name == name:
                self._scheduler.lose_producer(producer, text)
