"""What of a file reaches a decoder: one still image, with an end."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from augd.pixels import decode as decoding
from augd.pixels.decode import Pixels, decode
from augd.pixels.headers.read_header import BadImage, read_header
from augd.pixels.still_image import ended_jpeg, still_png
from tests.hostile.images import (
    HEIGHT,
    JPEG,
    PROGRESSIVE,
    RESTARTS,
    WIDTH,
    chunk,
    idat,
    photo,
    png,
    png_of,
    saved,
)
from tests.support.scenes import EITHER_KERNELS, caught_noise

pytestmark = EITHER_KERNELS

_TRAILER = b"\0\0\x30\x0aImage_UTC_Data1500000000000SEFHj\0\0\0\x01\0\0\0SEFT"
_ACTL = chunk(b"acTL", struct.pack(">II", 2, 0))
_FCTL = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0))


def whole(data: bytes) -> Pixels:
    header = read_header(data)
    with caught_noise():
        return decode(data, header, (0, 0, header.width, header.height))


def frame_data(rows: NDArray[np.uint8]) -> bytes:
    lines = np.insert(rows.reshape(HEIGHT, -1), 0, 0, axis=1).tobytes()
    return chunk(b"fdAT", b"\0\0\0\1" + zlib.compress(lines))


# --- animations ------------------------------------------------------------------------------


def test_no_decoder_sees_the_frames_of_an_animated_png(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    listen = decoding._listen

    def note(data: bytes, flags: int) -> tuple[object, bytes]:
        seen.append(bytes(data))
        return listen(data, flags)

    monkeypatch.setattr(decoding, "_listen", note)
    hidden = frame_data(255 - photo())
    for data in (
        png(_ACTL, idat(), _FCTL, hidden),
        png(_ACTL, _FCTL, idat(), hidden),
        png(idat(), _ACTL, _FCTL, hidden),
        png(_ACTL, idat(), _FCTL, chunk(b"fdAT", b"\0")),
        png(_ACTL, idat(), b"\x7f\xff\xff\xffacTL" + hidden),
    ):
        assert np.array_equal(whole(data), photo())
    assert seen and not any(kind in data for data in seen for kind in (b"fdAT", b"fcTL", b"acTL"))


def test_an_animated_png_of_16_bits_gives_the_upper_bytes() -> None:
    values = photo().astype(np.uint16) * 257 + np.arange(WIDTH, dtype=np.uint16)[:, None]
    plain = png_of(values)
    at = plain.index(b"IDAT") - 4
    deep = plain[:at] + _ACTL + _FCTL + plain[at:-12] + chunk(b"fdAT", b"\0") + plain[-12:]
    assert np.array_equal(whole(deep), values >> 8)
    assert np.array_equal(whole(deep), whole(plain))


def test_taking_the_animation_out_leaves_the_rest_to_the_byte() -> None:
    before = chunk(b"gAMA", b"\0\0\xb1\x8f")
    made = png(before, _ACTL, _FCTL, idat(), frame_data(photo())) + b"behind"
    assert still_png(made) == png(before, idat())


def test_an_animated_webp_gives_its_first_frame_as_pillow_does() -> None:
    small = Image.fromarray(photo()).resize((40, 30))
    canvas = Image.new("RGBA", (WIDTH, HEIGHT))
    canvas.paste(small, (10, 20))
    for first in (Image.fromarray(photo()), canvas):
        for lossless in (False, True):
            out = io.BytesIO()
            options = {"append_images": [first.rotate(90)], "lossless": lossless}
            first.save(out, "WEBP", save_all=True, **options)
            shown = Image.open(out).convert("RGBA")
            black = Image.new("RGBA", shown.size, (0, 0, 0, 255))
            black.alpha_composite(shown)
            found = whole(out.getvalue()).astype(int)
            assert np.abs(found - np.asarray(black.convert("RGB"))).max() <= 1


def test_a_first_frame_that_is_smaller_than_its_canvas_lies_where_it_says() -> None:
    inner = saved("WEBP", lossless=True)[12:]
    sides = (4, 2, WIDTH - 1, HEIGHT - 1, 10)
    frame = b"".join(side.to_bytes(3, "little") for side in sides) + b"\0" + inner
    canvas = struct.pack("<I", 2) + (119).to_bytes(3, "little") + (89).to_bytes(3, "little")
    body = b"WEBP"
    for kind, content in ((b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", frame)):
        body += kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) & 1)
    found = whole(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert found.shape == (90, 120, 3)
    assert np.array_equal(found[4 : 4 + HEIGHT, 8 : 8 + WIDTH], photo())
    assert found.astype(int).sum() == photo().astype(int).sum()


# --- a JPEG's end ----------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [JPEG, PROGRESSIVE, RESTARTS], ids=["plain", "scans", "restarts"])
@pytest.mark.parametrize(
    "behind",
    [b"", b"\xff", _TRAILER, b"moov \xff\xd9\0" * 20, b"\xff\xe1\0\x09trailer" * 9, bytes(5000)],
    ids=["nothing", "half", "camera", "video", "segments", "zeros"],
)
def test_a_whole_jpeg_without_its_end_marker_is_served(clean: bytes, behind: bytes) -> None:
    data = clean[:-2] + behind
    assert np.array_equal(whole(data), whole(clean))
    header = read_header(data)
    with caught_noise():
        top = decode(data, header, (8, 4, 40, 20))
    assert np.array_equal(top, whole(clean)[4:24, 8:48])


@pytest.mark.parametrize("clean", [JPEG, RESTARTS], ids=["plain", "restarts"])
@pytest.mark.parametrize(
    ("lost", "behind"),
    # A trailer of as many bytes as are missing is decoded as if it were they.
    [
        *((3, b""), (40, b""), (400, b""), (400, _TRAILER), (400, b"moov \xff\xe1\xff\xd9\0")),
        *((40, bytes(40)), (400, bytes(400)), (400, bytes(70_000)), (400, b"\xff" * 400)),
    ],
    ids=["3", "40", "400", "camera", "video", "few zeros", "zeros", "many zeros", "ones"],
)
def test_a_short_jpeg_without_its_end_marker_is_bad_whatever_the_crop(
    clean: bytes, lost: int, behind: bytes
) -> None:
    data = clean[: -2 - lost] + behind
    header = read_header(data)
    assert not header.is_plain
    for region in ((0, 0, WIDTH, 8), (0, 0, 16, 16), (0, HEIGHT - 8, WIDTH, 8)):
        with caught_noise(), pytest.raises(BadImage, match=r"without an end marker, and not whole"):
            decode(data, header, region)


def test_a_stuffed_byte_at_the_end_of_the_data_is_kept() -> None:
    """A byte of ones is followed by a zero, which is none of those that a cut file ends with."""
    header = read_header(JPEG)
    for behind in (b"", bytes(1), bytes(99)):
        short = JPEG[: header.sos_offset + 40].rstrip(b"\0") + b"\x12\xff\0" + behind
        assert ended_jpeg(short, header).endswith(b"\x12\xff\0\xff\xd9")


def test_every_scan_of_a_progressive_jpeg_must_be_there_where_no_marker_ends_it() -> None:
    ends = [at for at in range(len(PROGRESSIVE)) if PROGRESSIVE.startswith(b"\xff\xda", at)]
    for at in ends[1:]:
        begin = PROGRESSIVE.rfind(b"\xff\xc4", 0, at)
        for cut in (PROGRESSIVE[:begin], PROGRESSIVE[:at], PROGRESSIVE[: at + 20]):
            with caught_noise(), pytest.raises(BadImage, match="without an end marker"):
                decode(cut, read_header(cut), (0, 0, 8, 8))


def test_what_follows_the_end_marker_counts_for_nothing() -> None:
    for clean in (JPEG, PROGRESSIVE, RESTARTS):
        for behind in (b"\xff\xda\0\x08" * 5000, b"\xff\xdd\0\4\0\1" * 9, saved("JPEG"), _TRAILER):
            header = read_header(clean + behind)
            assert header == read_header(clean)
            assert np.array_equal(whole(clean + behind), whole(clean))


def test_only_files_without_a_marker_at_their_end_are_looked_at_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from augd.pixels.headers import jpeg

    def refuse(*_: object) -> int:
        raise AssertionError("looked for the end of a file that ends with its marker")

    monkeypatch.setattr(jpeg, "find_scan_end", refuse)
    assert read_header(JPEG).is_plain
    with pytest.raises(AssertionError):
        read_header(JPEG + bytes(9))
