"""What can happen to the broker, and what it can ask for: its whole contact with the world.

Events go in, actions come out (augd/broker/core.py). Both are plain frozen structs, so a
schedule can be written down, replayed and compared. Nothing here does anything.
"""

from __future__ import annotations

from msgspec import Struct

from augd.wire.messages import FromClient, FromProducer, ToClient, ToProducer

# events


class FromPeer(Struct, frozen=True):
    """A client's message; `peer` is its routing id, opaque."""

    peer: bytes
    message: FromClient


class PeerAttached(Struct, frozen=True):
    """A client's lifeline stands: from here on its death is noticed at once."""

    session: int
    token: str


class PeerGone(Struct, frozen=True):
    """A client's lifeline ended: the process is dead, or has left."""

    session: int


class FromCrew(Struct, frozen=True):
    """A producer's message."""

    producer: int
    message: FromProducer


class Reaped(Struct, frozen=True):
    """A producer ended and was waited for; `how` in words: a signal's name or a status."""

    producer: int
    how: str


class ArenaMade(Struct, frozen=True):
    """The memory of a stream stands."""

    stream: int


class ArenaFailed(Struct, frozen=True):
    """The memory of a stream cannot be had."""

    stream: int
    reason: str


class DrainAsked(Struct, frozen=True):
    """A person or the parent wants the daemon to end."""

    why: str


class Tick(Struct, frozen=True):
    """Time went on; carries nothing else."""


Event = (
    FromPeer
    | PeerAttached
    | PeerGone
    | FromCrew
    | Reaped
    | ArenaMade
    | ArenaFailed
    | DrainAsked
    | Tick
)

# actions


class Send(Struct, frozen=True):
    """Send to a client; `classes` asks for the class list of a data set as a second frame."""

    peer: bytes
    message: ToClient
    classes: str | None = None


class Tell(Struct, frozen=True):
    """Send to a producer; the fds that belong to the message ride along."""

    producer: int
    message: ToProducer


class MakeArena(Struct, frozen=True):
    """Allocate a stream's memory; answered by ArenaMade or ArenaFailed."""

    stream: int
    session: int
    size_bytes: int


class DropArena(Struct, frozen=True):
    """Close a stream's memory; whoever mapped it keeps it until he unmaps."""

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


class Log(Struct, frozen=True):
    """A line for the operator. `level` is of the logging module: 20 info, 30 warning, 40 error."""

    level: int
    text: str


class Stop(Struct, frozen=True):
    """Everything is drained: leave the loop."""


Action = (
    Send | Tell | MakeArena | DropArena | EndSession | StartProducer | KillProducer | Log | Stop
)
