"""What can happen to the broker, and what it can ask for: its whole contact with the world.

Events go in, actions come out (augd/server/daemon/broker/broker.py). Both are plain frozen structs,
so a schedule can be written down, replayed and compared. Nothing here does anything.
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

    `who` are the rights that belong to its key at this moment, None where no key is needed.
    """

    peer: bytes
    message: FromClient
    who: Rights | None = None


class PeerAttached(Struct, frozen=True):
    """A client's lifeline stands: from here on its death is noticed at once.

    `is_framed` says by which of the two sockets; `Broker.admits` says whether it counts.
    """

    session: int
    token: str
    is_framed: bool = False


class PeerUnreachable(Struct, frozen=True):
    """What is sent to a client doesn't arrive any more; his lifeline may stand."""

    session: int


class PeerGone(Struct, frozen=True):
    """A client's lifeline ended: the process is dead, or has left."""

    session: int


class RightsChanged(Struct, frozen=True):
    """What a client may do was changed or taken away by the operator; `text` tells the client."""

    name: str
    text: str


class FromLocalProducer(Struct, frozen=True):
    """A producer's message."""

    producer: int
    message: FromProducer


class FromRemoteProducer(Struct, frozen=True):
    """A remote producer's message, or its relay's. All the rows of a DONE have arrived."""

    producer: int
    message: FromRelay


class RemoteProducerAttached(Struct, frozen=True):
    """A remote producer's connection for rows stands; `Broker.admits_remote` says who counts."""

    producer: int
    token: str


class RemoteProducerGone(Struct, frozen=True):
    """A remote producer's connection ended, or it broke the protocol."""

    producer: int
    why: str


class Reaped(Struct, frozen=True):
    """A producer ended and was waited for; `how` in words: a signal's name or a status.

    `kind` is one of `augd.protocol.exit_reason.ExitReason`, empty when nobody looked. `crumb` is
    the (lease, row of it, sample) that it had in hand, by its own word: compare the lease with
    those it had. `is_tried_otherwise`: it was never ready, and its like are started without native
    kernels now.
    """

    producer: int
    how: str
    kind: str = ""
    current_sample: tuple[int, int, int] | None = None
    is_tried_otherwise: bool = False


class SamplesSelected(Struct, frozen=True):
    """The samples of a stream are chosen; the daemon has the list. So many have no label."""

    stream: int
    chosen: Chosen
    num_unlabelled: int = 0


class SelectionFailed(Struct, frozen=True):
    """A selection cannot be made; `code` names the exception class."""

    stream: int
    code: str
    text: str


class ArenaMade(Struct, frozen=True):
    """The memory of a stream stands."""

    stream: int


class ArenaFailed(Struct, frozen=True):
    """The memory of a stream cannot be had."""

    stream: int
    reason: str


class CacheFull(Struct, frozen=True):
    """The disk of the cache has less space than was promised; a producer lacks a room."""

    reason: str


class DrainAsked(Struct, frozen=True):
    """A person or the parent wants the daemon to end."""

    why: str


class Tick(Struct, frozen=True):
    """Time went on; carries nothing else."""


Event = (
    FromPeer
    | PeerAttached
    | PeerUnreachable
    | PeerGone
    | RightsChanged
    | FromLocalProducer
    | FromRemoteProducer
    | RemoteProducerAttached
    | RemoteProducerGone
    | Reaped
    | SamplesSelected
    | SelectionFailed
    | ArenaMade
    | ArenaFailed
    | CacheFull
    | DrainAsked
    | Tick
)

# actions


class SendToClient(Struct, frozen=True):
    """SendToClient to a client; `classes` asks for a class list as a second frame.

    A name asks for that data set's list, a tuple is the list itself.
    """

    peer: bytes
    message: ToClient
    classes: str | tuple[str, ...] | None = None


class SendToProducer(Struct, frozen=True):
    """SendToClient to a producer; to one of this host, with the fds that belong to the message."""

    producer: int
    message: ToProducer | ToRelay


class SendPaths(Struct, frozen=True):
    """SendToProducer a client where samples of a data set lie."""

    peer: bytes
    dataset: str
    ids: tuple[int, ...]


class SelectSamples(Struct, frozen=True):
    """Choose a stream's samples; answered by SamplesSelected or SelectionFailed."""

    stream: int
    dataset: str
    selection: Selection


class MakeArena(Struct, frozen=True):
    """Allocate a stream's memory; answered by ArenaMade or ArenaFailed."""

    stream: int
    size_bytes: int


class GiveArena(Struct, frozen=True):
    """Pass a stream's memory to a session that is attached by its lifeline."""

    stream: int
    session: int
    is_read_only: bool


class KeepQuarantine(Struct, frozen=True):
    """Write an entry to disk, before anything that follows is done."""

    dataset: str
    content: str
    entry: Quarantined
    how: str


class ClearCache(Struct, frozen=True):
    """Take every picture out of the cache, whose next ones are decoded by other libraries."""

    environment: dict[str, str]


class PutCached(Struct, frozen=True):
    """Write a picture's record: from now on it is found."""

    dataset: str
    entry: CacheEntry


class SendSlot(Struct, frozen=True):
    """SendToClient a batch's bytes in pieces, to a session that was attached by the bulk socket."""

    session: int
    opening: int
    sequence: int
    stream: int
    slot: int
    slot_bytes: int


class DropArena(Struct, frozen=True):
    """Close a stream's memory and its list; whoever mapped them keeps them until he unmaps."""

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
    """Take nothing more from a remote producer's connection; it is told why, where it still is."""

    producer: int
    why: str


class Log(Struct, frozen=True):
    """A line for the operator. `level` is of the logging module: 20 info, 30 warning, 40 error."""

    level: int
    text: str


class Stop(Struct, frozen=True):
    """Everything is drained: leave the loop."""


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
