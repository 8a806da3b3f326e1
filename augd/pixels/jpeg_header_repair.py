"""Repairs a JPEG's header: removes what decoders warn about and pixels don't need.

Called by the decoder for the rare files whose header holds something odd but harmless: stray bytes
between segments, an unknown JFIF version, an unknown Adobe transform, scan parameters that a
sequential scan does not use. Each is replaced by libjpeg's own reading of it, so that a second
decode warns only about the scan. Application blocks are left out: EXIF, profiles, thumbnails.

Invariants: the scan's bytes are not touched; the image decodes to the same pixels; nothing is
raised for a header that `read_header` accepted.
"""

from __future__ import annotations

from augd.pixels.headers.read_header import Header

_SOI = b"\xff\xd8"
_APP0, _APP14, _APP15, _SOS = 0xE0, 0xEE, 0xEF, 0xDA
# Marker and length included; shorter ones libjpeg doesn't read (jdmarker.c).
_JFIF_BYTES, _ADOBE_BYTES = 18, 16
# libjpeg reads an unknown Adobe transform as these (jdapimin.c).
_KNOWN_TRANSFORMS = {3: (1, 0), 4: (2, 0)}


def tidied(data: bytes | bytearray, header: Header) -> bytearray:
    """Copy a JPEG with its segments up to the first scan repaired. `data` stays as it is."""
    out = bytearray(_SOI)
    at = 2
    while at <= header.sos_offset:
        at = data.index(b"\xff", at)
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:
            # A second start of image is an error, and stays one.
            if marker == 0xD8:
                out += _SOI
            at += 2
        else:
            end = at + 2 + (data[at + 2] << 8 | data[at + 3])
            out += _segment(data[at:end], marker, header)
            at = end
    out += data[at:]
    return out


def _segment(data: bytes | bytearray, marker: int, header: Header) -> bytearray | bytes:
    segment = bytearray(data)
    if marker == _SOS and not header.progressive and len(segment) > 7:
        segment[-3:] = b"\x00\x3f\x00"
    elif marker == _APP0 and segment[4:9] == b"JFIF\0" and len(segment) >= _JFIF_BYTES:
        segment[9] = 1
    elif marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) >= _ADOBE_BYTES:
        known = _KNOWN_TRANSFORMS.get(header.num_components, (segment[15],))
        if segment[15] not in known:
            segment[15] = known[0]
    elif _APP0 <= marker <= _APP15:
        return b""
    return segment
