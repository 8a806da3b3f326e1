"""Encoding of messages: one version byte, then one msgpack map of at most 64 KiB.

It stands between the sockets and everything that acts on a message. What `decode_*` returns has the
declared type and lies within the declared bounds; anything else raises `ProtocolError` before
memory is allocated for it. It never unpickles and never recurses to unbounded depth (msgspec
bounds the nesting).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from augd.errors import ProtocolError
from augd.protocol.limits import HEADER_BYTES_MAX
from augd.protocol.messages import (
    PROTOCOL_VERSION,
    FromClient,
    FromProducer,
    FromRelay,
    Message,
    OverAttach,
    ToClient,
    ToProducer,
    ToRelay,
)

_VERSION_BYTE = bytes([PROTOCOL_VERSION])
_QUOTED_MAX = 400

_encoder = msgspec.msgpack.Encoder()
_from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
_to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)
_from_producer: msgspec.msgpack.Decoder[FromProducer] = msgspec.msgpack.Decoder(FromProducer)
_to_producer: msgspec.msgpack.Decoder[ToProducer] = msgspec.msgpack.Decoder(ToProducer)
_from_relay: msgspec.msgpack.Decoder[FromRelay] = msgspec.msgpack.Decoder(FromRelay)
_to_relay: msgspec.msgpack.Decoder[ToRelay] = msgspec.msgpack.Decoder(ToRelay)
_over_attach: msgspec.msgpack.Decoder[OverAttach] = msgspec.msgpack.Decoder(OverAttach)
_names: msgspec.msgpack.Decoder[list[str]] = msgspec.msgpack.Decoder(list[str])

T = TypeVar("T")


def encode(message: Message) -> bytes:
    """Encode one message.

    Raises:
        ProtocolError: the message is larger than a header may be, or a number in it.
    """
    try:
        frame = _VERSION_BYTE + _encoder.encode(message)
    except UnicodeEncodeError:  # file names are bytes, and need not be text
        plain = msgspec.to_builtins(message, builtin_types=(bytes, bytearray, memoryview))
        frame = _VERSION_BYTE + _encoder.encode(_as_text(plain))
    except OverflowError:
        kind = type(message).__struct_config__.tag
        raise ProtocolError(
            f"message {kind} has a number beyond 64 bits, expected one that fits"
        ) from None
    if len(frame) > HEADER_BYTES_MAX:
        kind = type(message).__struct_config__.tag
        raise ProtocolError(
            f"message {kind} is {len(frame)} bytes, more than the {HEADER_BYTES_MAX} that a "
            "header may have; shorten the recipe"
        )
    return frame


def as_text(name: str) -> str:
    r"""Return a file name as text; bytes that are not UTF-8 become \xNN."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace").decode()


def _as_text(plain: Any) -> Any:
    if isinstance(plain, str):
        return as_text(plain)
    if isinstance(plain, dict):
        return {_as_text(key): _as_text(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_as_text(part) for part in plain]
    return plain


def decode_from_client(frame: bytes | memoryview) -> FromClient:
    """Decode a message of a client; raises `ProtocolError`."""
    return _decode(frame, _from_client)


def decode_to_client(frame: bytes | memoryview) -> ToClient:
    """Decode a message of a daemon to its client; raises `ProtocolError`."""
    return _decode(frame, _to_client)


def decode_from_producer(frame: bytes | memoryview) -> FromProducer:
    """Decode a message of a producer; raises `ProtocolError`."""
    return _decode(frame, _from_producer)


def decode_to_producer(frame: bytes | memoryview) -> ToProducer:
    """Decode a message of a daemon to its producer; raises `ProtocolError`."""
    return _decode(frame, _to_producer)


def decode_from_relay(frame: bytes | memoryview) -> FromRelay:
    """Decode a message of a relay over the rows socket; raises `ProtocolError`."""
    return _decode(frame, _from_relay)


def decode_to_relay(frame: bytes | memoryview) -> ToRelay:
    """Decode a message of a daemon to a relay; raises `ProtocolError`."""
    return _decode(frame, _to_relay)


def decode_over_attach(frame: bytes | memoryview) -> OverAttach:
    """Decode a message over the UNIX or the bulk socket; raises `ProtocolError`."""
    return _decode(frame, _over_attach)


def encode_names(names: list[str]) -> bytes:
    """Encode a class list for its own frame, to which the header's limit does not apply."""
    return _encoder.encode(names)


def decode_names(frame: bytes | memoryview) -> list[str]:
    """Decode a class list; raises `ProtocolError`."""
    try:
        return _names.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"class list does not decode: {_brief(str(error))}") from None


def _decode(frame: bytes | memoryview, decoder: msgspec.msgpack.Decoder[T]) -> T:
    size = len(frame)
    if size > HEADER_BYTES_MAX:
        raise ProtocolError(f"header of {size} bytes, expected at most {HEADER_BYTES_MAX}")
    if size == 0:
        raise ProtocolError("empty header, expected a version byte and a msgpack map")
    if frame[0] != PROTOCOL_VERSION:
        raise UnsupportedVersion(
            f"the peer speaks protocol version {frame[0]}, this side speaks "
            f"{PROTOCOL_VERSION}; install the same version of augd on both sides"
        )
    try:
        return decoder.decode(memoryview(frame)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"header does not decode: {_brief(str(error))}") from None


def _brief(text: str) -> str:
    """Return one printable line; a long text loses its middle.

    The text may quote the peer's bytes. It goes back to the peer in an ERROR, and into the log.
    """
    if len(text) > _QUOTED_MAX:
        text = f"{text[: _QUOTED_MAX - 60]} ... {text[-50:]}"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


class UnsupportedVersion(ProtocolError):
    """The first byte names another protocol version."""

    code = "UNSUPPORTED_VERSION"
