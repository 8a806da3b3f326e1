"""Decodes: bytes and a region in, exactly that region out as RGB.

Runs between the read and the resample. The native kernels decode JPEGs and touch little more than
the region. Without them, OpenCV decodes the whole image, except that it stops a sequential JPEG
below the region: the height in the frame header is lowered. The new height ends with the MCU row
that holds the region's last row and the chroma that this row's upsampling needs. Either way the
result equals whole decoding followed by the crop, bit for bit.

Invariants: BGR never leaves this module; no orientation is applied; an image is never returned
partly grey. What libjpeg only warns about (a broken or missing stretch of the scan) is a
`BadImage`, provided that `silence_library_noise` has run in this process.

OpenCV hides libjpeg's count of warnings, so the only trace of a broken scan is the line that
libjpeg writes to the standard error stream. `silence_library_noise` therefore points file
descriptor 2 at a private file in memory, and each decode reads it. It also hides early stops, each
of which would print "extraneous bytes".

libjpeg prints only the first warning of an image, and a harmless one would hide a broken scan. If
one was printed, the image is decoded once more with its header repaired
(`augd/pixels/jpeg_header_repair.py`), so that the second warning is about the scan.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import re
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.box_reduce import reduce
from augd.pixels.decode_pillow import decode_other
from augd.pixels.headers.read_header import BadImage, Header
from augd.pixels.jpeg_header_repair import tidied
from augd.pixels.jpeg_segments import Cut, has_all_restarts
from augd.pixels.still_image import (
    ended_jpeg,
    first_frame,
    first_gif,
    first_page,
    png_key,
    still_png,
    without_tracks,
)
from augd.pixels.transparency import BLACK, Background, compose, keyed, on_canvas

Pixels = NDArray[np.uint8]
"""RGB rows: uint8 of shape (h, w, 3)."""

_AS_RGB: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# libjpeg's warnings that leave a part of the image undecoded (jerror.h).
_BROKEN_SCAN: Final = re.compile(
    rb"[Pp]remature end of|bad Huffman code|bad arithmetic code|instead of RST"
    rb"|Inconsistent progression"
)
# Warnings that are harmless by themselves.
_HARMLESS: Final = re.compile(
    rb"extraneous bytes before marker 0x(..)|Invalid SOS parameters|unknown JFIF revision"
    rb"|Unknown Adobe color transform"
)
_END_OF_IMAGE: Final = b"d9"
# OpenCV's IMREAD_REDUCED_COLOR_2 and so on also mean BGR, which excludes RGB. The bits of the scale
# alone are named after grey.
_AT_SCALE: Final = {
    1: _AS_RGB,
    2: _AS_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: _AS_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: _AS_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_LEAST: Final = 8  # the smallest scale: the entropy decoder's work is the same at each
# One page, of which one line is read. A file of a million bad chunks can make a library print more.
_MAX_NOISE_BYTES: Final = 4096

# The function that extracts what a decoder gets, for formats that may hold several images.
_STILLS: Final[dict[str, Callable[[bytes | bytearray], bytes | bytearray]]] = {
    "png": still_png,
    "gif": first_gif,
    "tiff": first_page,
    "avif": without_tracks,
    "heic": without_tracks,
}
_BY_OPENCV: Final = ("jpeg", "png", "webp")

_noise_fd: int | None = None


def configure() -> None:
    """Set up OpenCV for a producer: one thread, as the producers themselves are the parallelism."""
    cv2.setNumThreads(1)


def silence_library_noise() -> None:
    """Redirect what C libraries print away from the terminal, so that `decode` can read it.

    Call once in a producer process, before its first decode. Python's own `sys.stderr` and
    `faulthandler` (if enabled) continue to write to the old standard error stream.
    """
    global _noise_fd
    if _noise_fd is not None:
        return
    sys.stderr.flush()
    old = os.dup(2)
    sys.stderr = open(old, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    if faulthandler.is_enabled():
        faulthandler.enable(file=sys.stderr)
    _noise_fd = _divert_standard_error()


def _divert_standard_error() -> int:
    """Point descriptor 2 at a file in memory. Returns a second descriptor of that file.

    The file can't grow: what is written past its end is lost, without an error for the writer.
    """
    noise = os.memfd_create("augd-library-noise", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(noise, _MAX_NOISE_BYTES)
    fcntl.fcntl(noise, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    os.dup2(noise, 2)
    return noise


def decode(
    data: bytes | bytearray,
    header: Header,
    region: tuple[int, int, int, int],
    scale: int = 1,
    background: Background = BLACK,
) -> Pixels:
    """Decode the region (x, y, w, h), in pixels of the stored image, to RGB, at 1/`scale`.

    The result is uint8 (h, w, 3), sides divided by `scale` and rounded up, and may be a view of a
    larger array. The inverse DCT scales JPEGs. Others, and CMYK, which OpenCV cannot scale so, are
    decoded at full size and reduced by means of scale x scale pixels. Without kernels a `bytearray`
    changes while this runs and is as before when it returns, and `bytes` cost a copy if a JPEG is
    stopped early. Transparent parts show the `background` (`compose`). Deterministic for given
    library versions.

    Raises:
        BadImage: the decoder fails, warns of a broken scan, or disagrees with the header's size.
        ValueError: the region is empty or not inside the image; `scale` is not 1, 2, 4 or 8, or the
            region does not begin and end at its multiples or the image's edge.
    """
    check_region(header, region, scale)
    x, y, w, h = region
    if scale != 1 and (header.format != "jpeg" or header.num_components == 4):
        return reduce(decode(data, header, region, background=background), scale)
    if not header.is_plain:
        data = prepared(data, header)
    if is_native(header):
        x, y, w, h = at_scale(region, scale)
        out = np.empty((h, w, 3), np.uint8)
        run_native(native.kernels.decode_jpeg, data, out, header, x, y, scale)
        return out
    if header.format not in _BY_OPENCV:
        return _decode_other(data, header, region, background)
    if header.has_alpha or (header.format == "webp" and not header.is_plain):
        found = _decode_alpha(data, header)
        if found is not None:
            return compose(found, region, background, is_bgr=True)
    if header.num_components == 4 and header.format == "jpeg":
        whole = _decode_cmyk(data, header)
    else:
        rows = _rows_needed(header, y + h, scale)
        if rows < header.height:
            whole = _decode_top(data, header, rows, scale)
        else:
            found = _imdecode(data, header, _AT_SCALE[scale])
            whole = _checked(found, header, header.height, scale)
    x, y, w, h = at_scale(region, scale)
    return whole[y : y + h, x : x + w]


def decode_whole(data: bytes | bytearray, header: Header, out: Pixels) -> None:
    """Decode the whole image into `out`, C-contiguous uint8 (height, width, 3); see `decode`.

    Raises:
        BadImage: as `decode`; the content of `out` is then undefined.
    """
    if is_native(header):
        run_native(native.kernels.decode_jpeg, prepared(data, header), out, header, 0, 0, 1)
    else:
        np.copyto(out, decode(data, header, (0, 0, header.width, header.height)))


def decode_cut(cut: Cut, region: tuple[int, int, int, int], scale: int = 1) -> Pixels:
    """Decode a region of an image from the segments that were read. Equals `decode`'s result.

    Raises:
        BadImage: the segments are not what their index says, or are broken.
    """
    x, y, w, h = at_scale(region, scale)
    if not native.has_own_entropy_decoder():
        part = cut.part()
        inside = region[0] - part.x, region[1] - part.y, *region[2:]
        return decode(part.data, part.header, inside, scale)
    out = np.empty((h, w, 3), np.uint8)
    try:
        native.kernels.decode_cut(*cut_arguments(cut, out), x, y, scale)
    except native.kernels.DecodeError as error:
        raise BadImage(str(error)) from None
    return out


def cut_arguments(cut: Cut, out: Pixels) -> tuple[Any, ...]:
    """Return the first arguments of the kernels that decode restart segments."""
    data, table, cells = cut
    return (
        data, out, table.lengths, table.columns, table.rows, *cells, table.scan_offset, *table[:5],
    )  # fmt: skip


def at_scale(region: tuple[int, int, int, int], scale: int) -> tuple[int, int, int, int]:
    """Convert a region to pixels of the image at 1/`scale`; the last ones may be partial."""
    x, y, w, h = region
    return x // scale, y // scale, -(-w // scale), -(-h // scale)


def prepared(data: bytes | bytearray, header: Header) -> bytes | bytearray:
    """Return the part of a file that a decoder gets: nearly always the file itself.

    A JPEG without an end marker is decoded as a whole: any region of it is bad if it is short.

    Raises:
        BadImage: a JPEG without an end marker is short.
    """
    if header.is_plain or header.format == "webp":
        return data
    if header.format in _STILLS:
        return _STILLS[header.format](data)
    data, plain = ended_jpeg(data, header), msgspec.structs.replace(header, is_plain=True)
    try:
        decode(data, plain, (0, 0, header.width, header.height), _LEAST)
    except BadImage as bad:
        raise BadImage(f"JPEG without an end marker, and not whole: {bad}") from None
    return data


def is_native(header: Header) -> bool:
    """Return whether the kernels decode such an image: any JPEG but those in CMYK."""
    return native.kernels is not None and header.format == "jpeg" and header.num_components != 4


def run_native(
    kernel: Callable[..., None],
    data: bytes | bytearray,
    out: Pixels,
    header: Header,
    *more: int,
) -> None:
    """Call a kernel that decodes.

    Raises:
        BadImage: the image does not decode.
    """
    try:
        kernel(data, out, header.width, header.height, *more)
    except native.kernels.DecodeError as error:
        raise BadImage(str(error)) from None


def check_region(header: Header, region: tuple[int, int, int, int], scale: int) -> None:
    """Raise ValueError for the regions and scales that `decode` rejects."""
    x, y, w, h = region
    if not (0 <= x < x + w <= header.width and 0 <= y < y + h <= header.height):
        raise ValueError(
            f"region: expected a part of {header.width}x{header.height}, got {w}x{h} at ({x}, {y})"
        )
    if scale == 1:
        return
    if scale not in _AT_SCALE:
        raise ValueError(f"scale: expected 1, 2, 4 or 8, got {scale}")
    for start, end, side in ((x, x + w, header.width), (y, y + h, header.height)):
        if start % scale or (end % scale and end != side):
            raise ValueError(
                f"region: expected multiples of the scale {scale} or the image's edge, got "
                f"{w}x{h} at ({x}, {y}) of {header.width}x{header.height}"
            )


def _rows_needed(header: Header, end: int, scale: int = 1) -> int:
    """Return the height that must be decoded so that the rows above `end` come out exact.

    Smooth upsampling of a row reads one more chroma row below, hence one more row group, which is
    one row of the scaled image.
    """
    if not header.can_stop_early:
        return header.height
    if header.max_v_sampling > 1:
        end += header.max_v_sampling * scale
    return min(header.height, -(-end // header.mcu_height) * header.mcu_height)


def _decode_top(data: bytes | bytearray, header: Header, rows: int, scale: int) -> Pixels:
    """Decode the first `rows` rows of a sequential JPEG, by lowering the height in its header."""
    if isinstance(data, bytes):
        data = bytearray(data)
    at = header.sof_height_offset
    stated = data[at : at + 2]
    data[at : at + 2] = rows.to_bytes(2, "big")
    try:
        return _checked(_imdecode(data, header, _AT_SCALE[scale]), header, rows, scale)
    finally:
        data[at : at + 2] = stated


def _decode_other(
    data: bytes | bytearray,
    header: Header,
    region: tuple[int, int, int, int],
    background: Background,
) -> Pixels:
    """Decode images that OpenCV does not, and compose those with alpha."""
    try:
        found = decode_other(data, header)
    finally:
        if _noise_fd is not None:
            _take_noise(_noise_fd)  # a warning left over would be taken for the next image's
    if found.shape[2] == 4:
        return compose(found, region, background, is_bgr=False)
    x, y, w, h = region
    return _checked(found, header, header.height)[y : y + h, x : x + w]


def _decode_alpha(data: bytes | bytearray, header: Header) -> NDArray[Any] | None:
    """Decode with alpha: BGRA, uint8 or uint16 (height, width, 4); None if all is opaque."""
    if header.format == "webp" and not header.is_plain:
        frame = first_frame(data, header)
        found = _imdecode(frame.data, frame.header, cv2.IMREAD_UNCHANGED)
        if found is None or found.ndim != 3:
            _checked(None, header, header.height)
        return on_canvas(found, frame.x, frame.y, header.width, header.height)
    if header.format == "jpeg":
        return None
    found = _imdecode(data, header, cv2.IMREAD_UNCHANGED)
    if found is not None and found.ndim == 2 and header.format == "png":
        key = png_key(data)
        found = None if key is None else keyed(found, *key)
    if found is None or found.ndim != 3 or found.shape[2] != 4:
        return None  # the header promises transparency that the decoder did not find
    if found.shape[:2] != (header.height, header.width):
        raise _other_size(found, header.width, header.height)
    pixels: NDArray[Any] = found
    return pixels


def _decode_cmyk(data: bytes | bytearray, header: Header) -> Pixels:
    """Decode CMYK and YCCK with Pillow, which returns the four channels, unlike OpenCV.

    With Adobe's marker the channels are stored inverted, without it they are not. Pillow always
    takes them as inverted. OpenCV decodes first, since Pillow does not report a broken scan.
    """
    from io import BytesIO

    from PIL import Image, ImageChops

    _checked(_imdecode(data, header, _AS_RGB), header, header.height)
    try:
        # Repaired, since Pillow's parsers of EXIF, MPF and Photoshop blocks raise errors of any
        # kind.
        with Image.open(BytesIO(tidied(data, header)), formats=("JPEG",)) as opened:
            image: Image.Image = opened
            if "adobe" not in image.info:
                image = ImageChops.invert(image)
            found = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, LookupError, struct.error) as error:
        raise BadImage(f"CMYK JPEG does not decode: {type(error).__name__}") from None
    return _checked(found, header, header.height)


def _imdecode(data: bytes | bytearray, header: Header, flags: int) -> Any:
    """Run OpenCV's decoder; None if it fails. Raises BadImage for a broken scan."""
    found, noise = _listen(data, flags)
    if noise and header.format == "jpeg" and _hides_more(noise, header):
        found, noise = _listen(tidied(data, header), flags)
        if _hides_more(noise, header) and not _is_after_the_scan(data, noise, header):
            raise BadImage(f"broken scan: {_first_line(noise)}")
    return found


def _listen(data: bytes | bytearray, flags: int) -> tuple[Any, bytes]:
    """Run OpenCV's decoder once. Returns its result and what was printed meanwhile."""
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise BadImage(f"does not decode: {_one_line(error.err or error)}") from None
    finally:
        # Also if it fails: the next image would be taken for the right one.
        noise = b"" if _noise_fd is None else _take_noise(_noise_fd)
    if noise and _BROKEN_SCAN.search(noise):
        raise BadImage(f"broken scan: {_first_line(noise)}")
    return found, noise


def _hides_more(noise: bytes, header: Header) -> bool:
    """Return whether more warnings may have followed libjpeg's first one."""
    warning = _HARMLESS.search(noise)
    return warning is not None and (warning[1] != _END_OF_IMAGE or header.has_restarts)


def _is_after_the_scan(data: bytes | bytearray, noise: bytes, header: Header) -> bool:
    """Return whether bytes were skipped where no image data can follow: not between scans or
    restarts.
    """
    warning = _HARMLESS.search(noise)
    if not header.is_single_scan or warning is None or warning[1] is None:
        return False
    if header.has_restarts and warning[1] != _END_OF_IMAGE:
        return False
    return not header.has_restarts or has_all_restarts(data, header)


def _take_noise(fd: int) -> bytes:
    """Return what the libraries printed since the last call. Costs two system calls if it is
    nothing.
    """
    size = os.lseek(fd, 0, os.SEEK_CUR)
    if not size:
        return b""
    os.lseek(fd, 0, os.SEEK_SET)
    return os.pread(fd, min(size, _MAX_NOISE_BYTES), 0)


def _first_line(noise: bytes) -> str:
    return noise.splitlines()[0].decode("ascii", "backslashreplace")


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or repr(error)


def _checked(found: Any, header: Header, height: int, scale: int = 1) -> Pixels:
    if found is None:
        raise BadImage(f"the {header.format.upper()} decoder gave up: the file is damaged")
    expected = -(-height // scale), -(-header.width // scale), 3
    if found.shape != expected or found.dtype != np.uint8:
        raise _other_size(found, expected[1], expected[0])
    pixels: Pixels = found
    return pixels


def _other_size(found: NDArray[Any], width: int, height: int) -> BadImage:
    return BadImage(
        f"decoded to another size: expected {width}x{height} RGB, got shape "
        f"{found.shape} of {found.dtype}"
    )
