"""The messages of the daemon to the fetcher, and those between the fetcher and producers.

All belong to one installation and inherit their sockets, so no other program sends these messages.
They are not part of the protocol of docs/protocol.md. A producer may have been taken over by a
hostile image, so what it sends is bounded and checked. Pure declarations.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct, msgpack

BUFFER_SLOTS_MAX: Final = 16
PIECES_MAX: Final = 1024

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ShardRange = tuple[Count, Count, Count, Count]
"""Number of a shard, first byte in it, number of bytes, offset in the fetch buffer."""


class FetchMessage(Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all messages of the fetcher."""


class UseDataset(FetchMessage, frozen=True, tag="USE_DATASET"):
    """Daemon to fetcher: a dataset in a store; the fd of its index comes with the message."""

    name: str


class UseFetchChannel(FetchMessage, frozen=True, tag="USE_FETCH_CHANNEL"):
    """Daemon to fetcher: the fetch channel of a producer.

    Two fds come with the message: the socket over which the producer asks, and its fetch buffer of
    `fetch_buffer_bytes`, memory that both map.
    """

    fetch_buffer_bytes: Count


class Ask(FetchMessage, frozen=True, tag="ASK"):
    """Producer to fetcher: read these ranges. One request per buffer slot; `request_id` counts
    up."""

    buffer_slot: Annotated[int, Meta(ge=0, lt=BUFFER_SLOTS_MAX)]
    request_id: Count
    dataset: str
    pieces: Annotated[tuple[ShardRange, ...], Meta(min_length=1, max_length=PIECES_MAX)]


class Filled(FetchMessage, frozen=True, tag="FILLED"):
    """Fetcher to producer: the bytes are in the fetch buffer."""

    buffer_slot: int
    request_id: int


class Refused(FetchMessage, frozen=True, tag="REFUSED"):
    """Fetcher to producer: the store does not return the bytes, for this reason."""

    buffer_slot: int
    request_id: int
    text: str


class Resend(FetchMessage, frozen=True, tag="RESEND"):
    """Fetcher to producer, first: send all unanswered requests again."""


ToFetcher = UseDataset | UseFetchChannel
FromFetcher = Filled | Refused | Resend

_encoder = msgpack.Encoder()
_to_fetcher: msgpack.Decoder[ToFetcher] = msgpack.Decoder(ToFetcher)
_from_fetcher: msgpack.Decoder[FromFetcher] = msgpack.Decoder(FromFetcher)
_ask: msgpack.Decoder[Ask] = msgpack.Decoder(Ask)


def encode(note: FetchMessage) -> bytes:
    """Encode one message."""
    return _encoder.encode(note)


def decode_to_fetcher(frame: bytes) -> ToFetcher:
    """Decode a message of the daemon; raises `msgspec.MsgspecError`."""
    return _to_fetcher.decode(frame)


def decode_from_fetcher(frame: bytes) -> FromFetcher:
    """Decode a message of the fetcher; raises `msgspec.MsgspecError`."""
    return _from_fetcher.decode(frame)


def decode_ask(frame: bytes) -> Ask:
    """Decode a request of a producer; raises `msgspec.MsgspecError`."""
    return _ask.decode(frame)
