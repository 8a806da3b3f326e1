"""What is fuzzed, and what must hold for any bytes. Used by the fuzzer and by an ordinary test.

Each target takes bytes and returns; an exception is a finding. The invariants say more than "no
crash": what passes is inside its limits and agrees with what was announced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from augd.errors import ProtocolError, RecipeError
from augd.pixels.decode import decode
from augd.pixels.headers.formats import PACKAGES
from augd.pixels.headers.read_header import BadImage, Header, read_header
from augd.plan.recipe.recipe import parse_recipe
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import HEADER_BYTES_MAX

MAX_PIXELS: Final = 200_000  # small, so that an execution takes no more than milliseconds
_REASON_MAX: Final = 2500  # 400 characters, each of them escaped


def header(data: bytes) -> Header | None:
    """Read an image's header: inside the limits, positions inside the file, or a reason."""
    try:
        found = read_header(data, max_pixels=MAX_PIXELS)
    except BadImage as bad:
        _check_reason(bad)
        return None
    assert found.width > 0 and found.height > 0
    assert found.width * found.height <= MAX_PIXELS
    assert 1 <= found.orientation <= 8
    assert found.num_components in (1, 2, 3, 4)
    if found.format == "jpeg":
        assert data[found.sos_offset :][:2] == b"\xff\xda"
        assert data[found.sof_height_offset :][:2] == found.height.to_bytes(2, "big")
        assert 2 < found.sof_height_offset < found.sos_offset
        assert found.mcu_height == 8 * found.max_v_sampling <= 32 and found.mcu_width <= 32
    else:
        assert not found.can_stop_early
    assert read_header(bytearray(data), max_pixels=MAX_PIXELS) == found
    return found


def pixels(data: bytes) -> None:
    """Decode an image: exactly the announced shape or a reason, and its top like the whole."""
    found = header(data)
    if found is None or found.format in PACKAGES:  # whose decoders are not ours to search
        return
    owned = bytearray(data)
    top = (found.width // 3, 0, found.width - found.width // 3, (found.height + 3) // 4)
    try:
        whole = decode(owned, found, (0, 0, found.width, found.height))
    except BadImage as bad:
        _check_reason(bad)
        whole = None
    try:
        part = decode(owned, found, top)
    except BadImage as bad:
        _check_reason(bad)
        assert whole is None, f"the whole decodes, its top doesn't: {bad}"
    else:
        assert part.shape == (top[3], top[2], 3) and part.dtype == "uint8"
        if whole is not None:
            assert whole.shape == (found.height, found.width, 3) and whole.dtype == "uint8"
            assert (part == whole[: top[3], top[0] :]).all()
    _scaled(owned, found, whole is not None)
    assert owned == data


def _scaled(data: bytearray, found: Header, is_good: bool) -> None:
    """Decode at 1/2, 1/4 and 1/8: bad when the image is, and as large as announced."""
    for scale in (2, 4, 8):
        try:
            small = decode(data, found, (0, 0, found.width, found.height), scale)
        except BadImage as bad:
            _check_reason(bad)
            assert not is_good, f"the image decodes, at 1/{scale} it doesn't: {bad}"
        else:
            assert is_good, f"the image is bad, at 1/{scale} it decodes"
            assert small.shape == (-(-found.height // scale), -(-found.width // scale), 3)
            assert small.dtype == "uint8"


def wire(data: bytes) -> None:
    """Decode a frame by the decoder that its first byte names: a message, or `ProtocolError`."""
    if not data:
        return
    decoder = DECODERS[data[0] % len(DECODERS)]
    try:
        message = decoder(data[1:])
    except ProtocolError as error:
        _check_reason(error)
        return
    assert len(data) - 1 <= HEADER_BYTES_MAX
    try:
        again = codec.encode(message)
    except ProtocolError as error:  # numbers may take more bytes than they came in
        assert "more than the 65536" in str(error)
        return
    assert codec.encode(decoder(again)) == again
    if isinstance(message, msg.Open):
        _recipe(message)


def names(data: bytes) -> None:
    """Decode a class list: strings, or `ProtocolError`."""
    try:
        found = codec.decode_names(data)
    except ProtocolError as error:
        _check_reason(error)
        return
    assert all(type(name) is str for name in found)
    assert codec.decode_names(codec.encode_names(found)) == found


def _recipe(message: msg.Open) -> None:
    """Read the recipe as a daemon does: it is the only plain data of a request."""
    try:
        parse_recipe(message.spec.recipe)
    except RecipeError as error:
        assert str(error)


DECODERS: Final[tuple[Callable[[bytes], msg.Message], ...]] = (
    codec.decode_from_client,
    codec.decode_to_client,
    codec.decode_from_producer,
    codec.decode_to_producer,
    codec.decode_over_attach,
    codec.decode_from_relay,  # at the end: an input's first byte is a place in this list
    codec.decode_to_relay,
)
TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "header": header,
    "pixels": pixels,
    "wire": wire,
    "names": names,
}


def _check_reason(error: Exception) -> None:
    """One line that names something and isn't as long as what came in."""
    text = str(error)
    assert text and text.isprintable() and len(text) <= _REASON_MAX, text
    msgspec.msgpack.encode(text)  # it travels to a person
