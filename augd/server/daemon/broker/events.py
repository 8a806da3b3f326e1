"""The events that the broker handles and the actions that it returns: its whole interface.

The daemon's loop passes an event to `Broker.handle` and carries out the actions that it returns.
Both are plain frozen structs, so a schedule can be recorded, replayed and compared. Pure
declarations.
"""

from __future__ import annotations

from msgspec import Struct

from augd.protocol.messages import (
    CacheEntry,
    Chosen,
    FromClient,
    FromProducer,
    FromRelay,
    Quarantined,
    Selection,
    ToClient,
    ToProducer,
    ToRelay,
)
from augd.protocol.permissions import Rights

# events


class FromPeer(Struct, frozen=True):
    """A client's message; `peer` is its routing id, opaque.

    `rights` are those that belong to its key at this moment, None where no key is needed.
    """

    peer: bytes
    message: FromClient
    rights: Rights | None = None


class PeerAttached(Struct, frozen=True):
    """A client's lifeline is connected: from here on its death is noticed at once.

    `is_framed` says by which of the two sockets; `Broker.admits` says whether it is valid.
    """

    session: int
    token: str
    is_framed: bool = False


class PeerUnreachable(Struct, frozen=True):
    """A client receives nothing more; its lifeline may still be connected."""

    session: int


class PeerGone(Struct, frozen=True):
    """A client's lifeline ended: the process is dead, or closed the session."""

    session: int


class RightsChanged(Struct, frozen=True):
    """The operator changed or removed the rights of a client; `text` is for that client."""

    name: str
    text: str


class FromLocalProducer(Struct, frozen=True):
    """A message of a producer on this host."""

    producer: int
    message: FromProducer


class FromRemoteProducer(Struct, frozen=True):
    """A message of a remote producer or its relay. All the rows of a DONE have arrived."""

    producer: int
    message: FromRelay


class RemoteProducerAttached(Struct, frozen=True):
    """A remote producer connected for its rows; `Broker.admits_remote` says whether it is valid."""

    producer: int
    token: str


class RemoteProducerGone(Struct, frozen=True):
    """A remote producer's connection ended, or it broke the protocol."""

    producer: int
    why: str


class Reaped(Struct, frozen=True):
    """A producer exited and was reaped; `how` in words: a signal's name or a status.

    `kind` is an `augd.protocol.exit_reason.ExitReason`, empty when it was not determined.
    `current_sample` is the (lease, row of it, sample) that it was decoding, as the producer wrote
    it: the lease must be one of its own. `is_tried_otherwise`: it was never ready, and the next
    ones are started without native kernels.
    """

    producer: int
    how: str
    kind: str = ""
    current_sample: tuple[int, int, int] | None = None
    is_tried_otherwise: bool = False


class SamplesSelected(Struct, frozen=True):
    """The samples of a stream are selected; the daemon has the list."""

    stream: int
    chosen: Chosen
    num_unlabelled: int = 0


class SelectionFailed(Struct, frozen=True):
    """A selection cannot be made; `code` names the exception class."""

    stream: int
    code: str
    text: str


class ArenaMade(Struct, frozen=True):
    """The arena of a stream is allocated."""

    stream: int


class ArenaFailed(Struct, frozen=True):
    """The arena of a stream cannot be allocated."""

    stream: int
    reason: str


class CacheFull(Struct, frozen=True):
    """The disk of the cache has less space than it was granted."""

    reason: str


class DrainAsked(Struct, frozen=True):
    """A signal or the parent process asks the daemon to end."""

    why: str


class Tick(Struct, frozen=True):
    """Time passed; a deadline may be due."""


SessionEvent = (
    PeerAttached
    | PeerUnreachable
    | PeerGone
    | RightsChanged
    | SamplesSelected
    | SelectionFailed
    | ArenaMade
    | ArenaFailed
)
Event = (
    FromPeer
    | SessionEvent
    | FromLocalProducer
    | FromRemoteProducer
    | RemoteProducerAttached
    | RemoteProducerGone
    | Reaped
    | CacheFull
    | DrainAsked
    | Tick
)

# actions


class SendToClient(Struct, frozen=True):
    """Send to a client; `classes` asks for a class list as a second frame.

    A name stands for that dataset's list, a tuple is the list itself.
    """

    peer: bytes
    message: ToClient
    classes: str | tuple[str, ...] | None = None


class SendToProducer(Struct, frozen=True):
    """Send to a producer; to one of this host with the fds that belong to the message."""

    producer: int
    message: ToProducer | ToRelay


class SendPaths(Struct, frozen=True):
    """Send a client the paths of samples of a dataset."""

    peer: bytes
    dataset: str
    ids: tuple[int, ...]


class SelectSamples(Struct, frozen=True):
    """Select a stream's samples; answered by SamplesSelected or SelectionFailed."""

    stream: int
    dataset: str
    selection: Selection


class MakeArena(Struct, frozen=True):
    """Allocate a stream's arena; answered by ArenaMade or ArenaFailed."""

    stream: int
    size_bytes: int


class GiveArena(Struct, frozen=True):
    """Pass a stream's arena to a session over its lifeline."""

    stream: int
    session: int
    is_read_only: bool


class KeepQuarantine(Struct, frozen=True):
    """Write an entry to disk before any later action is carried out."""

    dataset: str
    content: str
    entry: Quarantined
    how: str


class ClearCache(Struct, frozen=True):
    """Remove every image from the cache: the next ones are decoded by other libraries."""

    environment: dict[str, str]


class PutCached(Struct, frozen=True):
    """Write an image's record: from now on producers find it."""

    dataset: str
    entry: CacheEntry


class SendSlot(Struct, frozen=True):
    """Send a batch's bytes in pieces to a session that is attached by the bulk socket."""

    session: int
    opening: int
    sequence: int
    stream: int
    slot: int
    slot_bytes: int


class DropArena(Struct, frozen=True):
    """Close a stream's arena and its list; a process that mapped them keeps them until it
    unmaps."""

    stream: int


class EndSession(Struct, frozen=True):
    """Close a client's lifeline: the session is over."""

    session: int


class StartProducer(Struct, frozen=True):
    """Start a producer under this number; answered by messages and, at its end, Reaped."""

    producer: int


class KillProducer(Struct, frozen=True):
    """SIGKILL a producer that hangs; answered by Reaped."""

    producer: int


class ForgetProducer(Struct, frozen=True):
    """Close a remote producer's connection, after PART with the reason if it is still open."""

    producer: int
    why: str


class Log(Struct, frozen=True):
    """Write a line to the log. `level` is as in `logging`: 20 info, 30 warning, 40 error."""

    level: int
    text: str


class Stop(Struct, frozen=True):
    """All producers have exited: leave the loop."""


Action = (
    SendToClient
    | SendToProducer
    | SendPaths
    | SelectSamples
    | MakeArena
    | GiveArena
    | KeepQuarantine
    | ClearCache
    | PutCached
    | SendSlot
    | DropArena
    | EndSession
    | StartProducer
    | KillProducer
    | ForgetProducer
    | Log
    | Stop
)
