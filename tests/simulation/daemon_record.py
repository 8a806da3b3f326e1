"""The record of a daemon's life: what the broker may do, as far as the outside can know.

Which leases are out and may still be written, which slots somebody may read, what credit was
granted, which batch is in which slot. Kept apart from the broker's own record, and by other means.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from augd.protocol import messages as msg
from augd.protocol.quarantine import united
from tests.simulation.line import Line
from tests.simulation.rows import Violation

Where = tuple[int, int]  # (stream, slot)


class DaemonRecord:
    """What was granted, lent and sent."""

    def __init__(self, kept: list[tuple[str, msg.Quarantined]]) -> None:
        self.kept = kept  # what was written down, by content
        self.attached: dict[int, Line] = {}
        self.leases: dict[Where, dict[int, msg.Lease]] = defaultdict(dict)
        self.leased_by: dict[int, set[tuple[Where, int]]] = defaultdict(set)
        self.reading: dict[Where, dict[int, int]] = defaultdict(dict)  # session -> generation
        self.contents: dict[tuple[int, int, int], tuple[int, int, bytes]] = {}
        self.streams: dict[int, int] = {}  # session -> its stream
        self.credit: dict[tuple[int, int], int] = {}
        self.openings: dict[int, int] = {}

    def note_heard(self, line: Line, message: msg.FromClient) -> None:
        """Keep the record: what this message allows the broker to do."""
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

    def close_lease(self, number: int, lease: int) -> None:
        """Count a lease as answered."""
        for where, other in [one for one in self.leased_by[number] if one[1] == lease]:
            self.leased_by[number].discard((where, other))
            del self.leases[where][lease]

    def check_news(self, news: msg.QuarantinedMessage) -> None:
        """A verdict is told only after it was written down."""
        if not set(news.entries) <= {entry for _, entry in self.kept}:
            raise Violation(f"{news} before it was written down")

    def check_opened(self, opened: msg.Opened) -> None:
        """What was written down holds wherever a stream of that content begins anew."""
        is_joined = opened.is_shared and opened.stream in self.streams.values()
        masked = united(opened.quarantine)
        for content, (sample, *place) in self.kept:
            is_meant = content == opened.content and not is_joined
            if is_meant and masked.get(sample, (1 << 62, 0)) > tuple(place):
                raise Violation(f"{opened} does not mask sample {sample} from {place} on")

    def check_batch(self, ready: msg.BatchMessage) -> None:
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

    def assign_lease(self, number: int, lease: msg.Lease) -> None:
        """Count a lease as out."""
        self.check_lease(lease)
        where = lease.stream, lease.slot
        self.leases[where][lease.lease] = lease
        self.leased_by[number].add((where, lease.lease))

    def remove_exited(self, number: int) -> list[int]:
        """Count all leases of a producer that was reaped as lost; returns them."""
        lost = self.leased_by.pop(number, set())
        for where, lease in lost:
            del self.leases[where][lease]
        return [lease for _, lease in lost]
