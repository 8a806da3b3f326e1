"""The messages between a client and the daemon, one class each; JOIN and JOINED of a relay, too.

ATTACH, ARENA and PIECE go over the UNIX socket or the bulk socket, all others over the ROUTER
socket. Pure declarations.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from augd.protocol.limits import PATHS_MAX
from augd.protocol.message_parts import (
    ArraySpec,
    Count,
    Digest,
    Epoch,
    Message,
    Name,
    Path,
    PhaseArrays,
    Quarantine,
    Share,
    Small,
    Spec,
    Sum,
    Text,
)


class Hello(Message, frozen=True, tag="HELLO"):
    """Open a session. `nonce` comes back in WELCOME, with the splits that `dataset` records.

    `dataset` is the name that OPEN will have, nil if the daemon serves one dataset.
    """

    nonce: Name
    software: Name = ""
    transport: Literal["memfd", "frames"] = "memfd"
    dataset: Name | None = None


class Open(Message, frozen=True, tag="OPEN"):
    """Start the stream, or seek in it: everything sent under an older `opening` is void.

    `held` lists the (slot, generation) that the client still reads and therefore keeps. `credit` is
    the first FLOW. `quarantine` lists the samples that the client's state names.
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

    `transfer_us` is how long it was held up by copying batches to its device. `fetch_us` is the
    part of `waited_us` in which a finished batch was on its way.
    """

    session: Count
    opening: Count
    credit: Count
    waited_us: Count = 0
    transfer_us: Count = 0
    fetch_us: Count = 0


class Release(Message, frozen=True, tag="RELEASE"):
    """The client no longer needs the bytes of this slot."""

    session: Count
    slot: Small
    generation: Count


class Bye(Message, frozen=True, tag="BYE"):
    """The client reads no further. The session ends with the release of the last slot in `held`."""

    session: Count
    held: tuple[tuple[Small, Count], ...] = ()


class Status(Message, frozen=True, tag="STATUS"):
    """Ask for a snapshot; needs no session."""


class Paths(Message, frozen=True, tag="PATHS"):
    """Ask for the paths of samples of a dataset; needs no session.

    `digest` is the dataset's, from the stream's `content_fields`: in another dataset, ids name
    other samples.
    """

    dataset: Name
    digest: Digest
    ids: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=PATHS_MAX)]


class Ping(Message, frozen=True, tag="PING"):
    """Ask for a PONG; any message counts as a heartbeat."""


class Join(Message, frozen=True, tag="JOIN"):
    """A producer of another host offers itself. All that it names must agree with the daemon.

    `datasets` are digests by name; `environment` and `confinement` are those of READY.
    """

    host: Name
    pid: Small
    datasets: Annotated[dict[Name, Digest], Meta(max_length=1024)]
    environment: dict[Name, Name]
    confinement: Name = ""


class Welcome(Message, frozen=True, tag="WELCOME"):
    """The session, and where to attach it: a UNIX socket, or the bulk socket's TCP port.

    `splits` counts the samples of each split that the dataset of HELLO records. It is empty if the
    dataset records none, or if the client may not read it.
    """

    nonce: Name
    instance: Name
    session: Count
    attach: Text
    token: Name
    bulk_port: Small = 0
    splits: Annotated[dict[Name, Count], Meta(max_length=16)] = {}  # noqa: RUF012 - a struct copies it


class Opened(Message, frozen=True, tag="OPENED"):
    """The stream is open and begins at (epoch, position); its class list is a second frame.

    `num_unlabelled` counts the selected samples whose label is -1. `stamp` is a digest of the times
    of the dataset's files, on which no byte depends. `changes` say, by earlier stamps, which files
    have other times or sizes since. `arrays` hold in all epochs before those of `phases`.
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
    phases: Annotated[tuple[PhaseArrays, ...], Meta(max_length=64)] = ()


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
    """The client lags too far behind its sharers. It keeps what it was sent, and is sent no
    more."""

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
    """Paths below the dataset's root, as bytes of the file system, of the first of the ids.

    It has as many as fit into a header, at least one; the client asks again for the others.
    """

    paths: Annotated[tuple[Path, ...], Meta(max_length=PATHS_MAX)]


class Pong(Message, frozen=True, tag="PONG"):
    """The answer to PING."""


class Joined(Message, frozen=True, tag="JOINED"):
    """The producer may attach: as `producer`, with this token, on the rows socket's TCP port."""

    producer: Count
    token: Name
    rows_port: Small = 0


class AttachMessage(Message, frozen=True, tag="ATTACH"):
    """Client to daemon: this connection is the session's lifeline, and carries its bytes."""

    session: Count
    token: Name


class Arena(Message, frozen=True, tag="ARENA"):
    """Daemon to client: the arena of the stream; its fd comes with the message."""

    stream: Count
    size_bytes: Count


class Piece(Message, frozen=True, tag="PIECE"):
    """Daemon to client: bytes of a slot, in the frame that follows; by frames only."""

    session: Count
    opening: Count
    sequence: Count
    offset: Count
    size_bytes: Count
