"""The typed messages of the protocol, one class each (docs/protocol.md, section 3).

Everything that travels between client, daemon and producer is one of these, as a tagged
msgpack map. Pure declarations: nothing here opens, waits or allocates.

Rules for change: a new field gets a default, so that both neighbours of a release
understand each other; a changed or removed field raises `PROTOCOL_VERSION`. Fields that a
reader doesn't know are ignored, unknown types are an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from augd.plan.order.shuffle_option import Shuffle
from augd.protocol.limits import PATHS_MAX, QUARANTINE_MAX

PROTOCOL_VERSION = 1

# Bounds that a decoder enforces before anything acts on a message.
Count = Annotated[int, Meta(ge=0, le=2**62)]
Epoch = Annotated[int, Meta(ge=0, le=2**31 - 1)]  # 32 bits of the random counter
Small = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=16_384)]
Digest = Annotated[str, Meta(max_length=64)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Path = Annotated[bytes, Meta(max_length=2**16)]
Sum = Annotated[bytes, Meta(max_length=16)]  # a sum of digests: little-endian, 8 or 16 bytes
# (sample, epoch, position): the sample is masked from that place of the epoch's order on.
Quarantined = tuple[Count, Epoch, Count]
Quarantine = Annotated[tuple[Quarantined, ...], Meta(max_length=QUARANTINE_MAX)]


class Message(Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all messages; the tag is the upper-case name of protocol.md."""


class ArraySpec(Struct, frozen=True):
    """One array of a slot: `offset` is in bytes from the slot's start."""

    name: Name
    dtype: Name
    shape: tuple[Small, ...]
    offset: Count


class Layout(Struct, frozen=True):
    """How an epoch is cut into batches; it may change at a resume, content may not."""

    batch_size: Annotated[int, Meta(ge=1, le=2**24)]
    rank: Small = 0
    world: Annotated[int, Meta(ge=1, le=2**20)] = 1
    drop_last: bool = False


class Selection(Struct, frozen=True, omit_defaults=True):
    """Which samples of the data set an epoch consists of; by default all.

    `split` goes by what the data set records, else by `val_fraction` of a hash of the paths.
    `classes` keeps these only and numbers them in this order, `limit` keeps at most so many,
    and `balance` draws classes in equal numbers.
    """

    split: Literal["train", "val", "test"] | None = None
    val_fraction: Fraction = 0.1
    classes: tuple[Name, ...] | None = None
    limit: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    balance: Literal["class"] | None = None


class Chosen(Struct, frozen=True):
    """The shape of a list of chosen samples.

    `num_groups` counts the classes with samples when the draws are balanced, `num_picked` the
    classes that were named; else they are 0.
    """

    num_samples: Count
    num_groups: Small = 0
    num_picked: Small = 0


class Spec(Struct, frozen=True, omit_defaults=True):
    """What a client asks for: plain data, validated again by the daemon."""

    dataset: Name | None
    recipe: dict[str, Any]
    layout: Layout
    seed: Seed = 0
    shuffle: Shuffle = True
    bad: Literal["mask", "fail"] = "mask"
    max_bad_fraction: Fraction = 0.01
    prefetch: Annotated[int, Meta(ge=1, le=1024)] = 4
    selection: Selection = Selection()
    params: bool = False


# client -> daemon


class Share(Struct, frozen=True, omit_defaults=True):
    """How a client shares one production with others that ask for the same.

    `at` "next" joins a running production at its next batch; "here" only one that still has the
    batch at the place asked for. Where there is none to join, one begins at that place, and waits
    until `sharers` clients joined, at most `wait_s`. `max_lag` is how many batches this client may
    be behind the fastest before it goes on by itself; without it the others wait.
    """

    at: Literal["next", "here"] = "next"
    sharers: Annotated[int, Meta(ge=1, le=1024)] = 1
    wait_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 0.0
    max_lag: Annotated[int, Meta(ge=0, le=1024)] | None = None


class Hello(Message, frozen=True, tag="HELLO"):
    """Open a session. `nonce` comes back in WELCOME, with the splits that `dataset` records.

    `dataset` is the name that OPEN will have, nil where the daemon serves one.
    """

    nonce: Name
    software: Name = ""
    transport: Literal["memfd", "frames"] = "memfd"
    dataset: Name | None = None


class Open(Message, frozen=True, tag="OPEN"):
    """Start the stream, or seek in it: everything sent under an older `opening` is void.

    `held` lists (slot, generation) that the client still reads and hence keeps. `credit` is the
    first FLOW. `quarantine` are the samples that its state names.
    """

    session: Count
    opening: Count
    spec: Spec
    epoch: Epoch = 0
    position: Count = 0
    credit: Count = 0
    held: tuple[tuple[Small, Count], ...] = ()
    quarantine: Quarantine = ()
    share: Share | None = None


class Flow(Message, frozen=True, tag="FLOW"):
    """How many batches may be sent, and how long the client waited, since the OPEN of `opening`.

    `transfer_us` is how long it was held up by handing batches to its device, and `fetch_us` the
    part of `waited_us` in which a batch that was made was on its way.
    """

    session: Count
    opening: Count
    credit: Count
    waited_us: Count = 0
    transfer_us: Count = 0
    fetch_us: Count = 0


class Release(Message, frozen=True, tag="RELEASE"):
    """The bytes of this slot are no longer needed."""

    session: Count
    slot: Small
    generation: Count


class Bye(Message, frozen=True, tag="BYE"):
    """The client reads on no more. The session ends with the release of the last slot in `held`."""

    session: Count
    held: tuple[tuple[Small, Count], ...] = ()


class Status(Message, frozen=True, tag="STATUS"):
    """Ask for a snapshot; needs no session."""


class Paths(Message, frozen=True, tag="PATHS"):
    """Ask where samples of a data set lie; needs no session.

    `digest` is the data set's in the stream's `content_fields`: ids of another one mean others.
    """

    dataset: Name
    digest: Digest
    ids: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=PATHS_MAX)]


class Ping(Message, frozen=True, tag="PING"):
    """Ask for a PONG; any message counts as a heartbeat."""


class Join(Message, frozen=True, tag="JOIN"):
    """A producer of another host offers itself. It must agree with the daemon in all that it names.

    `datasets` are digests by name, `environment` and `confinement` are those of READY.
    """

    host: Name
    pid: Small
    datasets: Annotated[dict[Name, Digest], Meta(max_length=1024)]
    environment: dict[Name, Name]
    confinement: Name = ""


# daemon -> client


class Welcome(Message, frozen=True, tag="WELCOME"):
    """The session, and where it is attached: a UNIX socket, or the bulk socket's TCP port.

    `splits` counts the samples of each split that the data set of HELLO records; empty where it
    records none, or is not the client's to read.
    """

    nonce: Name
    instance: Name
    session: Count
    attach: Text
    token: Name
    bulk_port: Small = 0
    splits: Annotated[dict[Name, Count], Meta(max_length=16)] = {}


class Opened(Message, frozen=True, tag="OPENED"):
    """The stream stands and begins at (epoch, position); its class list is a second frame.

    `num_unlabelled` counts the chosen samples whose label is -1. `stamp` is a digest of the times
    of the data set's files, which decide nothing; `changes` say, by stamps of before, which files
    have other times or sizes since.
    """

    session: Count
    opening: Count
    stream: Count
    content: Digest
    content_fields: dict[Name, Text]
    dataset: Name
    num_positions: Count
    arrays: tuple[ArraySpec, ...]
    slot_bytes: Count
    num_slots: Small
    epoch: Epoch = 0
    position: Count = 0
    quarantine: Quarantine = ()
    is_shared: bool = False
    num_unlabelled: Count = 0
    stamp: Digest = ""
    changes: Annotated[tuple[tuple[Digest, Text], ...], Meta(max_length=16)] = ()


class BatchMessage(Message, frozen=True, tag="BATCH"):
    """A filled slot. `rows` is the length of every array's first axis, `digest` sums its rows'."""

    session: Count
    opening: Count
    sequence: Count
    epoch: Count
    number: Count
    position: Count
    rows: Small
    slot: Small
    generation: Count
    num_bad: Small = 0
    digest: Sum = b""


class EpochEnd(Message, frozen=True, tag="EPOCH_END"):
    """All batches of an epoch were sent; the client compares its own counts and sums."""

    session: Count
    opening: Count
    epoch: Count
    batches: Count
    samples: Count
    num_bad: Count = 0
    digest: Sum = b""
    ids_digest: Sum = b""


class QuarantinedMessage(Message, frozen=True, tag="QUARANTINED"):
    """Samples that killed their decoder and are masked from now on; sent before their batch."""

    session: Count
    entries: Quarantine
    text: Text


class Detached(Message, frozen=True, tag="DETACHED"):
    """The client lags too far behind its sharers: what was sent stays, nothing more comes."""

    session: Count
    text: Text


class Notice(Message, frozen=True, tag="NOTICE"):
    """Something that a person should know and that stops nothing."""

    kind: Name
    text: Text


class Error(Message, frozen=True, tag="ERROR"):
    """A request failed, or the stream did. `code` names the exception class."""

    code: Name
    text: Text
    session: Count = 0
    opening: Count = 0
    is_retryable: bool = False


class StatusReply(Message, frozen=True, tag="STATUS_REPLY"):
    """A snapshot of the daemon as plain data, for people and benchmarks."""

    snapshot: dict[str, Any]


class PathsReply(Message, frozen=True, tag="PATHS_REPLY"):
    """Paths below the data set's root, as the file system has them: of the first of the ids.

    As many as a header has room for, one at least; whoever wants the others asks again.
    """

    paths: Annotated[tuple[Path, ...], Meta(max_length=PATHS_MAX)]


class Pong(Message, frozen=True, tag="PONG"):
    """The answer to PING."""


class Joined(Message, frozen=True, tag="JOINED"):
    """The producer may attach: as `producer`, with this token, on the rows socket's TCP port."""

    producer: Count
    token: Name
    rows_port: Small = 0


# daemon <-> producer


class BadRow(Struct, frozen=True):
    """One masked row: the sample's id and why."""

    sample: int
    path: Text
    reason: Text


class CacheEntry(Struct, frozen=True, omit_defaults=True):
    """A whole picture that lies decoded in the cache, from byte `offset` on, as it is stored.

    `orientation` is EXIF's; `digest` is xxh3-64 of the pixels where the cache outlives its daemon.
    `replaces` says that the picture that was there was found damaged.
    """

    sample: Count
    offset: Count
    width: Small
    height: Small
    orientation: Annotated[int, Meta(ge=1, le=8)] = 1
    digest: Sum = b""
    replaces: bool = False


class Ready(Message, frozen=True, tag="READY"):
    """The producer stands. `environment` names the versions that decide pixels.

    `confinement` says what keeps it from everything but its work: "seccomp" (no network, no
    other process), "landlock" (no file is written), joined by "+"; empty when nothing does.
    """

    pid: Small
    environment: dict[Name, Name]
    confinement: Name = ""


class CacheMessage(Message, frozen=True, tag="CACHE"):
    """There is a cache of decoded pictures; the fd of its pixels rides along.

    `is_checked` says that what is in it may be older than its daemon: digests count.
    """

    size_bytes: Count
    is_checked: bool = False


class Room(Message, frozen=True, tag="ROOM"):
    """Bytes [start, end) of the cache are this producer's to fill, after the rooms it has."""

    start: Count
    end: Count


class DatasetMessage(Message, frozen=True, tag="DATASET"):
    """A data set exists; two fds ride along: its index and its size hints.

    With `is_cached` a third does: the table of its cached pictures.
    """

    name: Name
    root: Text
    digest: Digest
    is_cached: bool = False


class StreamMessage(Message, frozen=True, tag="STREAM"):
    """A stream exists; its arena's fd rides along, and with `chosen` that of the list.

    To a remote producer no fd does: it makes memory of its own, and the list by `selection`.
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


class Mask(Message, frozen=True, tag="MASK"):
    """The whole quarantine of a stream: mask these samples in what is made from now on."""

    stream: Count
    quarantine: Quarantine


class Drop(Message, frozen=True, tag="DROP"):
    """The stream is gone: forget it and unmap its arena."""

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
    these rows, without waiting for their files; 0 says nothing. `readers_added` is how many threads
    were added to those that read a data set's files, because these come slowly.
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
    """Pictures lie in the producer's rooms, whole, in the order in which they were written.

    A room before one of them is given back. `wanted_bytes` says that a picture fitted nowhere.
    """

    dataset: Name
    entries: tuple[CacheEntry, ...] = ()
    wanted_bytes: Count = 0


class Alive(Message, frozen=True, tag="ALIVE"):
    """Rows are being made; sent when a lease takes longer than a second."""

    lease: Count


class LastWords(Message, frozen=True, tag="LAST_WORDS"):
    """Why a producer is about to end."""

    text: Text


class Trouble(Message, frozen=True, tag="TROUBLE"):
    """What is wrong with the producer's installation and stops nothing, before READY."""

    text: Text


class Drain(Message, frozen=True, tag="DRAIN"):
    """Finish and end."""


# daemon <-> remote producer


class Kill(Message, frozen=True, tag="KILL"):
    """Daemon to relay: SIGKILL this producer, it hangs; answered by ENDED."""


class Part(Message, frozen=True, tag="PART"):
    """Daemon to relay: nobody here knows this connection, or does any more. Join again."""

    text: Text


class Beat(Message, frozen=True, tag="BEAT"):
    """Relay to daemon: it lives; with `is_idle` its producer has made all that it was given."""

    is_idle: bool = False


class Ended(Message, frozen=True, tag="ENDED"):
    """Relay to daemon: the producer was reaped, its last message of this connection.

    `how` in words, `kind` as the daemon's own kernel would tell it, `crumb` as P-77 has it.
    """

    how: Text
    kind: Literal["drained", "error", "signal", "memory", "killed", "stopped", "outside"]
    crumb: tuple[Count, Small, Count] | None = None


FromClient = Hello | Open | Flow | Release | Bye | Status | Paths | Ping | Join
ToClient = (
    Welcome
    | Opened
    | BatchMessage
    | EpochEnd
    | QuarantinedMessage
    | Detached
    | Notice
    | Error
    | StatusReply
    | PathsReply
    | Pong
    | Joined
)
FromProducer = Ready | Done | Dropped | Fail | Cached | Alive | LastWords | Trouble
ToProducer = (
    CacheMessage | Room | DatasetMessage | StreamMessage | Mask | Drop | Lease | Revoke | Drain
)


# over the UNIX socket, or the bulk socket


class AttachMessage(Message, frozen=True, tag="ATTACH"):
    """Client to daemon: this connection is the session's lifeline, and the way of its bytes."""

    session: Count
    token: Name


class Arena(Message, frozen=True, tag="ARENA"):
    """Daemon to client: the arena of the stream; its fd rides along."""

    stream: Count
    size_bytes: Count


class Piece(Message, frozen=True, tag="PIECE"):
    """Daemon to client: bytes of a slot, in the frame that follows; by frames only."""

    session: Count
    opening: Count
    sequence: Count
    offset: Count
    size_bytes: Count


OverAttach = AttachMessage | Arena | Piece
# over the rows socket
FromRelay = AttachMessage | Done | Dropped | Fail | Alive | LastWords | Beat | Ended
ToRelay = DatasetMessage | StreamMessage | Mask | Drop | Lease | Revoke | Drain | Kill | Part
