"""The header of a JPEG: its segments up to the first scan, and where its image ends.

An image ends with its end marker. What follows is ignored. If the marker is missing, the image may
still be complete: its decoder then decodes all of it (`Header.is_plain`). Only files that don't end
with the marker are searched for it.
Source: ITU T.81, B.1 and B.2.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from augd.pixels.headers.exif import EXIF_MARK, XMP_MARK, find_orientation
from augd.pixels.headers.header import MAX_SCANS, MAX_SEGMENTS, BadImage, Header, too_many_segments

# What to do at each marker: most segments are skipped, these are read.
_SKIP, _FRAME, _APP1, _RESTARTS, _SCAN, _STUFF, _NO_LENGTH, _END, _UNSUPPORTED = range(9)
_STEPS = bytearray(256)
for _marker in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
    _STEPS[_marker] = _FRAME
for _marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):
    _STEPS[_marker] = _UNSUPPORTED
for _marker in (0x00, 0x01, *range(0xD0, 0xD9)):
    _STEPS[_marker] = _NO_LENGTH
_STEPS[0xD9], _STEPS[0xDA], _STEPS[0xE1] = _END, _SCAN, _APP1
_STEPS[0xDD], _STEPS[0xFF] = _RESTARTS, _STUFF

_EOI: Final = b"\xff\xd9"
_PROGRESSIVE: Final = (0xC2, 0xCA)
_ARITHMETIC: Final = (0xC9, 0xCA)
_NUM_COEFFICIENTS: Final = 64
# In a scan FF is followed by 00, by another FF or by the number of a restart, or it is a marker.
_MARKER_IN_SCAN: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")

_sof = struct.Struct(">BHHB").unpack_from


def read_jpeg(data: bytes | bytearray) -> Header:
    """Walk the segments up to the first scan, and find the end of the image if that is not obvious.

    Raises:
        BadImage: the header is cut off or malformed, or the JPEG is of a kind that is not decoded.
    """
    try:
        frame_at, sos_at, app1, has_restarts = _walk(data)
    except (IndexError, ValueError):
        raise BadImage(f"JPEG header is cut off: the file ends after {len(data)} bytes") from None
    if not frame_at:
        raise BadImage(f"JPEG without a frame header before its first scan at byte {sos_at}")
    orientation = _read_orientation(data, app1) if app1 else 1
    return _read_frame(data, frame_at, sos_at, orientation, has_restarts)


def _walk(data: bytes | bytearray) -> tuple[int, int, list[tuple[int, int]], bool]:
    """Find the frame header (0 without one), the first scan, APP1 segments and restart intervals.

    IndexError and ValueError: the data ends before the first scan.
    """
    size = len(data)
    at = 2
    frame_at = 0
    app1: list[tuple[int, int]] = []
    has_restarts = False
    steps = _STEPS
    for _ in range(MAX_SEGMENTS):
        if data[at] != 0xFF:
            # libjpeg skips stray bytes between segments with a warning; files have them.
            at = data.index(b"\xff", at)
        step = steps[data[at + 1]]
        if step < _STUFF:
            length = data[at + 2] << 8 | data[at + 3]
            end = at + 2 + length
            if length < 2 or end > size:
                raise _lying_segment(data, at, length)
            if step:
                if step == _SCAN:
                    return frame_at, at, app1, has_restarts
                if step == _FRAME:
                    frame_at = at
                elif step == _RESTARTS:
                    has_restarts = any(data[at + 4 : end])
                else:
                    app1.append((at + 4, end))
            at = end
        elif step == _STUFF:
            at += 1
        elif step == _NO_LENGTH:
            at += 2
        else:
            raise _misplaced_marker(data, at, step)
    raise too_many_segments("JPEG", at)


def _read_orientation(data: bytes | bytearray, app1: list[tuple[int, int]]) -> int:
    exif: bytes | None = None
    xmp: bytes | None = None
    for start, end in app1:
        if data.startswith(EXIF_MARK, start, end):
            # An EXIF block of more than 64 kB continues in the next segment.
            exif = (exif or EXIF_MARK) + data[start + len(EXIF_MARK) : end]
        elif data.startswith(XMP_MARK, start, end):
            xmp = bytes(data[start + len(XMP_MARK) : end])
    return 1 if exif is None and xmp is None else find_orientation(exif, xmp)


def _misplaced_marker(data: bytes | bytearray, at: int, step: int) -> BadImage:
    if step == _END:
        return BadImage(f"JPEG without an image: its end marker comes at byte {at}")
    return BadImage(
        f"JPEG process FF{data[at + 1]:02X}: expected baseline, extended or progressive"
    )


def _lying_segment(data: bytes | bytearray, at: int, length: int) -> BadImage:
    return BadImage(
        f"JPEG segment FF{data[at + 1]:02X} at byte {at}: expected a length of "
        f"2..{len(data) - at - 2}, got {length}"
    )


def _read_frame(
    data: bytes | bytearray, at: int, sos_at: int, orientation: int, has_restarts: bool
) -> Header:
    marker = data[at + 1]
    length = data[at + 2] << 8 | data[at + 3]
    if length < 8:
        raise BadImage(f"JPEG frame header: expected at least 8 bytes, got {length}")
    precision, height, width, num_components = _sof(data, at + 4)
    if precision != 8:
        raise BadImage(f"JPEG precision: expected 8 bits, got {precision}")
    if num_components not in (1, 3, 4):
        raise BadImage(f"JPEG components: expected 1, 3 or 4, got {num_components}")
    if length != 8 + 3 * num_components:
        raise BadImage(
            f"JPEG frame header: expected {8 + 3 * num_components} bytes for {num_components} "
            f"components, got {length}"
        )
    max_h, max_v = _read_sampling(data[at + 11 : at + 2 + length : 3])
    # A scan of fewer components is followed by others, each of the full height.
    is_progressive = marker in _PROGRESSIVE
    is_single_scan = not is_progressive and data[sos_at + 4] == num_components
    if is_single_scan:
        has_end = data[-2:] == _EOI or _is_end(data, find_scan_end(data, sos_at))
    else:
        scans = Scans(data, sos_at, data[at + 10 : at + 2 + length : 3], is_progressive)
        has_end, has_restarts = scans.has_end, has_restarts or scans.has_restarts
        if not has_end and not scans.is_complete:
            raise BadImage(
                f"JPEG ends after {len(data)} bytes without an end marker, and scans are missing"
            )
    if not has_end and marker in _ARITHMETIC:
        raise BadImage(
            f"JPEG ends after {len(data)} bytes without an end marker: in arithmetic coding "
            f"nothing else tells whether it is whole"
        )
    return Header(
        "jpeg",
        width,
        height,
        orientation,
        num_components,
        False,
        is_progressive,
        is_single_scan,
        has_restarts,
        # CMYK takes another path. In arithmetic coding the end is not where it seems. And libjpeg's
        # warning about bytes skipped before a restart marker could be that of the early stop.
        is_single_scan and marker <= 0xC1 and num_components < 4 and not has_restarts,
        8 * max_h,
        8 * max_v,
        max_v,
        at + 5,
        sos_at,
        has_end,
    )


def _read_sampling(all_factors: bytes | bytearray) -> tuple[int, int]:
    """Return the largest horizontal and vertical sampling factor of the components."""
    max_h = max_v = 1
    for factors in all_factors:
        # Most are 1x1.
        if factors != 0x11:
            h, v = factors >> 4, factors & 15
            if not 1 <= h <= 4 or not 1 <= v <= 4:
                raise BadImage(f"JPEG sampling factors: expected 1..4, got {h}x{v}")
            max_h = max(max_h, h)
            max_v = max(max_v, v)
    return max_h, max_v


def scan_start(data: bytes | bytearray, sos_at: int) -> int:
    """Return where the data of the scan begin whose marker stands at `sos_at`."""
    return sos_at + 2 + (data[sos_at + 2] << 8 | data[sos_at + 3])


def find_scan_end(data: bytes | bytearray, sos_at: int) -> int:
    """Return where the data of the scan that begins at `sos_at` ends: at a marker, or the file."""
    found = _MARKER_IN_SCAN.search(data, scan_start(data, sos_at))
    return len(data) if found is None else found.start()


def _is_end(data: bytes | bytearray, at: int) -> bool:
    return data[at : at + 2] == _EOI


class Scans:
    """The scans of a JPEG that has several, from the first one's marker on.

    `start` and `end` are where the last one's data begin and end. `is_complete`: each coefficient
    of each component came to its last bit. Only JPEGs of several scans pay for the walk.

    Raises:
        BadImage: more scans than `MAX_SCANS`.
    """

    def __init__(
        self,
        data: bytes | bytearray,
        sos_at: int,
        components: bytes | bytearray = b"",
        is_progressive: bool = False,
    ) -> None:
        """Walk them; `components` are the names of the frame's components."""
        self._is_progressive = is_progressive
        self.has_end = self.has_restarts = False
        self._missing = {name: [-1] * _NUM_COEFFICIENTS for name in components}
        self.start = self.end = len(data)
        num_scans, at = 0, sos_at
        for _ in range(MAX_SEGMENTS):
            marker = data[at + 1]
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            behind = at + 2 + length
            if marker == 0xD9:
                self.has_end, self.end = True, at
                return
            if length < 2 or behind > len(data):
                return
            if marker == 0xDA:
                num_scans += 1
                if num_scans > MAX_SCANS:
                    raise BadImage(f"JPEG scans: expected at most {MAX_SCANS}, got more")
                self._take(data[at + 4 : behind])
                self.start = behind
                self.end = behind = find_scan_end(data, at)
            elif marker == 0xDD:
                self.has_restarts = True
            found = _MARKER_IN_SCAN.search(data, behind)
            if found is None:
                return
            at = found.start()

    def _take(self, head: bytes | bytearray) -> None:
        """Record which coefficients a scan of this header brings."""
        names = head[1 : len(head) - 3 : 2]
        first, last, low = 0, _NUM_COEFFICIENTS - 1, 0  # a sequential scan has no such fields
        if self._is_progressive and len(head) > 3:
            first, last, low = head[-3], head[-2], head[-1] & 15
        for name in names:
            if (missing := self._missing.get(name)) is not None:
                for place in range(first, min(last + 1, _NUM_COEFFICIENTS)):
                    missing[place] = low

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing: no coefficient, and no bit of one."""
        return not any(any(missing) for missing in self._missing.values())
