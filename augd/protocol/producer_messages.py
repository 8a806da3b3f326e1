"""The messages between the daemon and a producer, or the relay of a remote one, one class each.

A local producer has a SEQPACKET link, and file descriptors come with some messages. A relay speaks
over the rows socket, which carries none. Pure declarations.
"""

from __future__ import annotations

from typing import Any, Literal

from augd.plan.order.repeat_option import ONCE, Repeats
from augd.plan.order.shuffle_option import Shuffle
from augd.protocol.message_parts import (
    ArraySpec,
    BadRow,
    CacheEntry,
    Chosen,
    Count,
    Digest,
    Layout,
    Message,
    Name,
    PhaseArrays,
    Quarantine,
    Seed,
    Selection,
    Small,
    Sum,
    Text,
)


class Ready(Message, frozen=True, tag="READY"):
    """The producer has started. `environment` names the versions that decide pixels.

    `confinement` says what confines it: "seccomp" (no network, no other process), "landlock" (no
    file is written), joined by "+"; empty when nothing does.
    """

    pid: Small
    environment: dict[Name, Name]
    confinement: Name = ""


class CacheMessage(Message, frozen=True, tag="CACHE"):
    """There is a cache of decoded images; the fd of its pixels comes with the message.

    `is_checked` says that its images may be older than the daemon: their digests must be checked.
    """

    size_bytes: Count
    is_checked: bool = False


class Room(Message, frozen=True, tag="ROOM"):
    """Bytes [start, end) of the cache are this producer's to fill, after the ones it has."""

    start: Count
    end: Count


class DatasetMessage(Message, frozen=True, tag="DATASET"):
    """A dataset; two fds come with the message: its index and its size hints.

    With `is_cached` there is a third: the table of its cached images.
    """

    name: Name
    root: Text
    digest: Digest
    is_cached: bool = False


class StreamMessage(Message, frozen=True, tag="STREAM"):
    """A stream; its arena's fd comes with the message, and with `chosen` that of the list.

    A remote producer gets no fd: it makes memory of its own, and the list by `selection`. `arrays`
    hold in all epochs before those of `phases`.
    """

    stream: Count
    dataset: Name
    recipe: dict[str, Any]
    layout: Layout
    seed: Seed
    shuffle: Shuffle
    arrays: tuple[ArraySpec, ...]
    slot_bytes: Count
    num_slots: Small
    chosen: Chosen | None = None
    selection: Selection = Selection()
    repeats: Repeats = ONCE
    phases: tuple[PhaseArrays, ...] = ()


class Mask(Message, frozen=True, tag="MASK"):
    """The whole quarantine of a stream: mask these samples in what is made from now on."""

    stream: Count
    quarantine: Quarantine


class Drop(Message, frozen=True, tag="DROP"):
    """The stream has ended: forget it and unmap its arena."""

    stream: Count


class Lease(Message, frozen=True, tag="LEASE"):
    """Make rows [first_row, first_row + rows) of the batch that starts at `position`."""

    lease: Count
    stream: Count
    epoch: Count
    position: Count
    first_row: Small
    rows: Small
    slot: Small
    attempt: Small = 0


class Revoke(Message, frozen=True, tag="REVOKE"):
    """Leases that need not be begun any more; each is answered by DONE or DROPPED."""

    leases: tuple[Count, ...]


class Done(Message, frozen=True, tag="DONE"):
    """The rows of a lease are in the slot. Times in ns since the last DONE, `plan_ns` of CPU.

    With a cache, `hits` rows came from it and `misses` did not. `cpu_ns` is the CPU time of making
    these rows, without waiting for their files; 0 means unknown. `readers_added` is how many
    threads were added to those that read a dataset's files, because these arrive slowly.
    """

    lease: Count
    num_bad: Small = 0
    bad: tuple[BadRow, ...] = ()
    digest: Sum = b""
    ids_digest: Sum = b""
    busy_ns: Count = 0
    plan_ns: Count = 0
    idle_ns: Count = 0
    hits: Small = 0
    misses: Small = 0
    cpu_ns: Count = 0
    readers_added: Small = 0


class Dropped(Message, frozen=True, tag="DROPPED"):
    """A revoked lease was not begun."""

    lease: Count


class Fail(Message, frozen=True, tag="FAIL"):
    """A lease could not be made, by an error that is no sample's fault. `code` is that of ERROR."""

    lease: Count
    text: Text
    code: Literal["INTERNAL", "PLUGIN_FAILED", "BAD_RECIPE", "STORE_FAILED"] = "INTERNAL"


class Cached(Message, frozen=True, tag="CACHED"):
    """Complete images in the producer's part of the cache, in the order they were written.

    A ROOM before one of them is given back. `wanted_bytes` is the size of an image that fitted
    nowhere.
    """

    dataset: Name
    entries: tuple[CacheEntry, ...] = ()
    wanted_bytes: Count = 0


class Alive(Message, frozen=True, tag="ALIVE"):
    """Rows are being made; sent when a lease takes longer than a second."""

    lease: Count


class LastWords(Message, frozen=True, tag="LAST_WORDS"):
    """Why a producer is about to exit."""

    text: Text


class Trouble(Message, frozen=True, tag="TROUBLE"):
    """What is wrong with the producer's installation and stops nothing, before READY."""

    text: Text


class Drain(Message, frozen=True, tag="DRAIN"):
    """Finish all leases and exit."""


class Kill(Message, frozen=True, tag="KILL"):
    """Daemon to relay: SIGKILL this producer, it hangs; answered by ENDED."""


class Part(Message, frozen=True, tag="PART"):
    """Daemon to relay: this connection is unknown here, or closed. Join again."""

    text: Text


class Beat(Message, frozen=True, tag="BEAT"):
    """Relay to daemon: it is alive; with `is_idle` its producer has made all that it was leased."""

    is_idle: bool = False


class Ended(Message, frozen=True, tag="ENDED"):
    """Relay to daemon: the producer was reaped, its last message of this connection.

    `how` is in words, `kind` is the class of the exit, `crumb` is its current sample as P-77 has
    it.
    """

    how: Text
    kind: Literal["drained", "error", "signal", "memory", "killed", "stopped", "outside"]
    crumb: tuple[Count, Small, Count] | None = None
