"""Formats of files: which endings images have, and what first bytes mean.

One table for the scan of a dataset (which files are images), the header's reader (which format some
bytes hold), and messages (what a file is that is no image).

Endings tell which files to read, content tells the format: a JPEG is read under any name.

Invariants: imports nothing beyond the standard library; opens nothing; reads at most `HEAD_BYTES`.
"""

from __future__ import annotations

from typing import Final, Literal

Format = Literal["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "heic", "jxl"]

HEAD_BYTES: Final = 512
"""How much of a file `recognise` and `describe` look at."""

ENDINGS: Final[dict[Format, tuple[bytes, ...]]] = {
    "jpeg": (b"jpg", b"jpeg", b"jpe", b"jfif"),
    "png": (b"png",),
    "webp": (b"webp",),
    "bmp": (b"bmp",),
    "tiff": (b"tif", b"tiff"),
    "gif": (b"gif",),
    "avif": (b"avif",),
    "heic": (b"heic", b"heif", b"hif"),
    "jxl": (b"jxl",),
}
"""The formats that are read, and the endings of their files, in lower case, without the dot."""

FORMAT_OF_ENDING: Final[dict[bytes, Format]] = {
    ending: kind for kind, endings in ENDINGS.items() for ending in endings
}
IMAGE_ENDINGS: Final = tuple(FORMAT_OF_ENDING)

PACKAGES: Final[dict[str, str]] = {"heic": "pillow-heif", "jxl": "pillow-jxl-plugin"}
"""Formats whose decoder is a package of its own, from the extra `formats`.

Their files are samples wherever they lie, with the decoder and without: what a dataset holds does
not depend on what is installed. Without it each is a bad sample that names the package.
"""

MODULES: Final[dict[str, str]] = {"heic": "pillow_heif", "jxl": "pillow_jxl"}
"""What these packages are imported as."""

DECODER: Final = "decoder."
"""What the names of their versions begin with, in a producer's environment."""

NAMES: Final[dict[str, str]] = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WebP",
    "bmp": "BMP",
    "tiff": "TIFF",
    "gif": "GIF",
    "avif": "AVIF",
    "heic": "HEIC",
    "jxl": "JPEG XL",
}
"""What the formats are called in messages."""

_JXL_BOX: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
_STARTS: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"\xff\xd8", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"\xff\x0a", "jxl"),
    (_JXL_BOX, "jxl"),
)
# Source: AV1 Image File Format 1.1, 6; ISO/IEC 23008-12, B.4.1 and 10.2.
_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_HEIC_BRANDS: Final = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
)
_STILL_BRANDS: Final = frozenset((b"mif1", b"mif2", b"mif3", b"msf1", b"miaf"))
_BMP_HEADER_SIZES: Final = frozenset((12, 40, 52, 56, 64, 108, 124))
_BMP_START_BYTES: Final = 18

# Other files among images, by first bytes. The first match counts.
_OTHERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"version https://git-lfs.github.com/spec/", "a git-lfs pointer: `git lfs pull` fetches it"),
    (b"II+\0", "a BigTIFF"),
    (b"MM\0+", "a BigTIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (b"8BPS", "a Photoshop file"),
    (b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"qoif", "a QOI"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"DDS ", "a DirectDraw surface"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"OggS", "an Ogg stream"),
    (b"ID3", "an MP3"),
    (b"\0\x05\x16\x07", "an AppleDouble file of macOS, which holds no image"),
    (b"\x7fELF", "a program"),
)


def recognise(start: bytes | bytearray) -> Format | None:
    """Return the format of a file by its first bytes; None if it is none of `ENDINGS`."""
    for magic, kind in _STARTS:
        if start.startswith(magic):
            return kind
    if start.startswith(b"RIFF"):
        return "webp" if start[8:12] == b"WEBP" else None
    if start[4:8] == b"ftyp":
        return _by_brands(start)
    if start.startswith(b"BM") and len(start) >= _BMP_START_BYTES:
        return "bmp" if int.from_bytes(start[14:18], "little") in _BMP_HEADER_SIZES else None
    return None


def _by_brands(start: bytes | bytearray) -> Format | None:
    """Tell AVIF from HEIC: by the major brand, then by the compatible ones."""
    end = min(int.from_bytes(start[:4], "big"), HEAD_BYTES, len(start))
    major, *others = (bytes(start[at : at + 4]) for at in (8, *range(16, end - 3, 4)))
    for brand in (major, *(others if major in _STILL_BRANDS else ())):
        if brand in _AVIF_BRANDS:
            return "avif"
        if brand in _HEIC_BRANDS:
            return "heic"
    # A still image that names no codec is most often a HEIC. Its decoder finds out.
    return "heic" if major in _STILL_BRANDS else None


def describe(start: bytes | bytearray) -> str:
    """Describe a file by its first bytes: "a GIF", "an HTML page", or its first bytes."""
    if not start:
        return "an empty file"
    kind = recognise(start)
    if kind is not None:
        return f"{'an' if kind == 'avif' else 'a'} {NAMES[kind]}"
    for magic, name in _OTHERS:
        if start.startswith(magic):
            return name
    if start.startswith(b"RIFF"):
        return f"a RIFF file of type {_shown(start[8:12])}"
    if start[4:8] == b"ftyp":
        return f"a video or other file of type {_shown(start[8:12])}"
    if start[257:262] == b"ustar":
        return "a tar archive"
    if len(start) > 2 and start[:1] == b"P" and start[1] in b"123456" and start[2] in b" \t\r\n#":
        return "a PPM, PGM or PBM"
    return _describe_text(start) or f"bytes {bytes(start[:8]).hex(' ')}"


def _describe_text(start: bytes | bytearray) -> str:
    text = bytes(start[:HEAD_BYTES]).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "an SVG"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    if text.startswith(b"<?xml"):
        return "an HTML page" if b"<html" in text else "an XML file"
    if text.startswith((b'{"', b"{\n", b"[{", b"{ ")):
        return "a JSON file"
    return ""


def _shown(name: bytes | bytearray) -> str:
    return ascii(bytes(name).decode("latin-1").strip())[1:-1] or "nothing"
