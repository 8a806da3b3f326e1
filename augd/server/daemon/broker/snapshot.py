"""The broker's state as plain data, for people and benchmarks; nothing is decided by it.

`Broker.snapshot` joins the parts. Pure, and bounded: STATUS_REPLY fits into a header.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from msgspec import msgpack

from augd.protocol import epoch_layout
from augd.protocol.dashboard_messages import Seen
from augd.protocol.limits import HEADER_BYTES_MAX
from augd.protocol.slot_layout import arrays_at
from augd.server.daemon.broker.batch_state import BatchState
from augd.server.daemon.broker.counters import MadeCounters, SentCounters
from augd.server.daemon.broker.dataset_facts import DatasetFacts
from augd.server.daemon.broker.producers import Producer
from augd.server.daemon.broker.quarantine import QuarantineRegister
from augd.server.daemon.broker.stream import StreamState

STATUS_BYTES_MAX = HEADER_BYTES_MAX - 256  # the rest is the message around it
_NAMED_MAX = 20


def describe_producer(producer: Producer, now: float) -> dict[str, Any]:
    """Describe a producer and what it has done; times in seconds since it started."""
    return {
        "number": producer.number,
        "pid": producer.pid,
        "host": "" if producer.remote is None else producer.remote.host,
        "state": producer.state,
        "confinement": producer.confinement,
        "leases": len(producer.leases),
        "chunks": producer.chunks_done,
        "rows": producer.rows_done,
        "busy_s": producer.busy_ns / 1e9,
        "plan_s": producer.plan_ns / 1e9,
        "idle_s": producer.idle_s(now),
        "readers_added": producer.readers_added,
    }


def describe_dataset(
    facts: DatasetFacts, register: QuarantineRegister, sent: SentCounters
) -> dict[str, Any]:
    """Describe a dataset, what was sent of it, and its quarantined samples."""
    quarantined = sorted(register.samples())
    return {
        "num_samples": facts.num_samples,
        "splits": dict(facts.splits),
        "num_unlabelled": facts.num_unlabelled,
        "digest": facts.digest,
        "root": facts.root,
        "num_quarantined": len(quarantined),
        "quarantined": quarantined[:_NAMED_MAX],
        "sent": describe_sent(sent),
    }


def describe_sent(sent: SentCounters) -> dict[str, Any]:
    """Describe what was sent, and how long its clients waited for it."""
    return {
        "batches": sent.batches,
        "images": sent.images,
        "bad": sent.bad,
        "waited_s": sent.waited_us / 1e6,
        "transfer_s": sent.transfer_us / 1e6,
        "fetch_s": sent.fetch_us / 1e6,
    }


def describe_made(made: MadeCounters) -> dict[str, Any]:
    """Describe what all producers made since the daemon started, and how long that took."""
    return {
        "images": made.images,
        "chunks": made.chunks,
        "busy_s": made.busy_ns / 1e9,
        "idle_s": made.idle_ns / 1e9,
    }


def describe_stream(stream: StreamState, sessions: list[int]) -> dict[str, Any]:
    """Describe a stream; `last_bad` are [id, path, reason].

    `readers` are the clients as [session, credit, sent, held, lag]. `session`, `credit` and `sent`
    are those of the slowest client.
    """
    clients = sorted(stream.clients.values(), key=lambda client: client.next)
    slowest = clients[0] if clients else None
    return {
        "stream": stream.number,
        "session": slowest.session if slowest else min(sessions, default=0),
        "sessions": sessions,
        "is_shared": stream.share is not None,
        "dataset": stream.dataset,
        "batch_size": stream.spec.layout.batch_size,
        "epoch": stream.next_epoch,
        "position": stream.next_position,
        "credit": slowest.credit if slowest else 0,
        "sent": slowest.sent if slowest else 0,
        "readers": [
            [c.session, c.credit, c.sent, len(stream.holds(c.session)), stream.lag_of(c)]
            for c in clients
        ],
        "slots": dict(Counter(slot.state for slot in stream.slots)),
        "arena_bytes": stream.arena_bytes,
        "chunk_rows": stream.chunk_rows(),
        "row_s": stream.chunk_size.row_ns / 1e9,
        "bad": stream.total.bad,
        "images": stream.total.images,
        "waited_s": stream.total.waited_us / 1e6,
        "transfer_s": stream.total.transfer_us / 1e6,
        "fetch_s": stream.total.fetch_us / 1e6,
        "num_batches": epoch_layout.batches_left(stream.spec.layout, stream.num_samples),
        "last_bad": [[row.sample, row.path, row.reason] for row in list(stream.bad_rows)[-10:]],
        "quarantined": [[s, *place] for s, place in sorted(stream.quarantine.items())][:_NAMED_MAX],
    }


def batch_in_hand(stream: StreamState) -> BatchState | None:
    """Return the batch that a client works on: the earliest sent one that is not released."""
    held = [slot.batch for slot in stream.slots if slot.batch is not None and slot.holders]
    return min(held, key=lambda batch: batch.sequence, default=None)


def describe_batch(stream: StreamState, batch: BatchState) -> Seen:
    """Describe where a batch lies, and what its rows were made by."""
    selection = stream.spec.selection
    return Seen(
        stream=stream.number,
        dataset=stream.dataset,
        epoch=batch.epoch,
        number=batch.number,
        rows=batch.rows,
        slot=batch.slot.index,
        generation=batch.slot.generation,
        arrays=tuple(arrays_at(stream.arrays, stream.phases, batch.epoch)),
        slot_bytes=stream.slot_bytes,
        num_slots=len(stream.slots),
        recipe=stream.spec.recipe,
        seed=stream.spec.seed,
        classes=selection.classes,
        is_balanced=selection.balance is not None,
    )


def shorten(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Halve the longest parts until the snapshot fits into a header; `is_cut` then says so."""
    while len(msgpack.encode(snapshot)) > STATUS_BYTES_MAX:
        longest = max(("producers", "streams", "datasets"), key=lambda part: len(snapshot[part]))
        whole = snapshot[longest]
        first = list(whole)[: len(whole) // 2]
        kept = {name: whole[name] for name in first} if isinstance(whole, dict) else first
        snapshot = {**snapshot, longest: kept, "is_cut": True}
    return snapshot
