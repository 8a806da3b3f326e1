"""What the fetcher hears from the daemon, and what it and the producers say to each other.

All are of one installation and their sockets are inherited, so that no other program speaks this:
it is no part of the protocol that docs/protocol.md promises. A producer may have been taken over,
so that what it says is bounded and checked. Pure declarations.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct, msgpack

BUFFER_SLOTS_MAX: Final = 16
PIECES_MAX: Final = 1024

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Place = tuple[Count, Count, Count, Count]
"""Number of a shard, first byte in it, number of bytes, and where in the fetch buffer they go."""


class FetchMessage(Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all."""


class UseDataset(FetchMessage, frozen=True, tag="USE_DATASET"):
    """Daemon to fetcher: there is a data set in a store; the fd of its index rides along."""

    name: str


class UseFetchChannel(FetchMessage, frozen=True, tag="USE_FETCH_CHANNEL"):
    """Daemon to fetcher: a producer asks over this socket, the first fd, for bytes in the second.

    That is its fetch buffer of `basin_bytes`, memory that both map.
    """

    fetch_buffer_bytes: Count


class Ask(FetchMessage, frozen=True, tag="ASK"):
    """Producer to fetcher: read these ranges. One at a time in a lane, where `turn` counts up."""

    buffer_slot: Annotated[int, Meta(ge=0, lt=BUFFER_SLOTS_MAX)]
    request_id: Count
    dataset: str
    pieces: Annotated[tuple[Place, ...], Meta(min_length=1, max_length=PIECES_MAX)]


class Filled(FetchMessage, frozen=True, tag="FILLED"):
    """Fetcher to producer: they lie in the basin."""

    buffer_slot: int
    request_id: int


class Refused(FetchMessage, frozen=True, tag="REFUSED"):
    """Fetcher to producer: the store does not give them, for this reason."""

    buffer_slot: int
    request_id: int
    text: str


class Resend(FetchMessage, frozen=True, tag="RESEND"):
    """Fetcher to producer, first: what was asked before and not answered is to be asked again."""


ToFetcher = UseDataset | UseFetchChannel
FromFetcher = Filled | Refused | Resend

_encoder = msgpack.Encoder()
_to_fetcher: msgpack.Decoder[ToFetcher] = msgpack.Decoder(ToFetcher)
_from_fetcher: msgpack.Decoder[FromFetcher] = msgpack.Decoder(FromFetcher)
_ask: msgpack.Decoder[Ask] = msgpack.Decoder(Ask)


def encode(note: FetchMessage) -> bytes:
    """Encode one."""
    return _encoder.encode(note)


def decode_to_fetcher(frame: bytes) -> ToFetcher:
    """Decode what the daemon says; raises `msgspec.MsgspecError`."""
    return _to_fetcher.decode(frame)


def decode_from_fetcher(frame: bytes) -> FromFetcher:
    """Decode what the fetcher says; raises `msgspec.MsgspecError`."""
    return _from_fetcher.decode(frame)


def decode_ask(frame: bytes) -> Ask:
    """Decode what a producer asks; raises `msgspec.MsgspecError`."""
    return _ask.decode(frame)
