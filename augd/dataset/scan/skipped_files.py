"""Counts the files that a scan skips, by kind, and names the first of each kind.

An image that is never read is never trained on, so the operator is told. The counts are kept with
the index, so that a later start reports them again.

Invariants: bounded, whatever a folder holds. Up to a thousand kinds, the report depends on names
alone, never on the order in which a file system lists them. Imports no NumPy.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import Final

from augd.dataset.scan_result import Skipped, shown
from augd.pixels.headers.formats import IMAGE_ENDINGS

_NAMED: Final = 3  # names kept of a kind
_KINDS_MAX: Final = 1024  # kinds counted separately
_TOLD_MAX: Final = 64  # kinds reported
_ENDING_MAX: Final = 12  # characters; longer ones are parts of names
_OTHERS: Final = "of other endings"
NO_ENDING: Final = "without an ending"
HIDDEN: Final = "hidden"
SHARD_KINDS: Final = frozenset((".tar", ".tgz", ".tbz2", ".txz"))
"""Kinds of shards, beside every `.tar.` of `_PACKED`."""
_PACKED: Final = frozenset((b"gz", b"bz2", b"xz", b"zst", b"lz4"))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Well-known endings that are not of images: such a file is never opened.
_KNOWN: Final = _words(
    "txt md rst log csv tsv json jsonl ndjson xml yaml yml toml ini cfg conf html htm css js py "
    "ipynb c h cpp cu sh bat db sqlite lmdb mdb npy npz pt pth pkl pickle ckpt safetensors onnx "
    "h5 hdf5 mat parquet arrow feather tfrecord tfrecords rec idx lst index bin dat zip tar gz "
    "tgz bz2 tbz2 xz txz zst lz4 7z rar mp4 avi mov mkv webm mpg mpeg m4v wav mp3 flac ogg pdf "
    "doc docx xls xlsx ppt pptx odt rtf tex ps svg exe dll so o a lock tmp part crdownload md5 "
    "sha1 sha256 sig asc xmp thm aae dvc url lnk cls caption label "
)
# Endings of images that are not read.
_FOREIGN: Final = _words("jp2 j2k jpx ppm pgm pbm pnm tga ico svg psd exr hdr ")
# Endings of raw images. Many are TIFFs, whose first page is a thumbnail.
_RAW: Final = _words(
    "3fr arw cap cr2 cr3 crw dcr dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef ptx raf raw "
    "rw2 rwl sr2 srf srw x3f "
)


class SkipCounter:
    """Counts skipped files."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, bool], tuple[int, list[bytes]]] = {}

    def note(self, kind: str, name: bytes, *, is_image: bool = False) -> None:
        """Count one more; `name` is its path in the dataset."""
        key = kind, is_image
        if key not in self._kinds and len(self._kinds) >= _KINDS_MAX:
            key = _OTHERS, is_image
        count, names = self._kinds.get(key, (0, []))
        if len(names) < _NAMED or name < names[-1]:
            insort(names, name)
            del names[_NAMED:]
        self._kinds[key] = count + 1, names

    def take(self, other: SkipCounter) -> None:
        """Add the counts of another counter."""
        for one in other.listed():
            key = one.kind, one.is_image
            count, names = self._kinds.get(key, (0, []))
            self._kinds[key] = count + one.count, sorted([*names, *one.names])[:_NAMED]

    def listed(self) -> list[Skipped]:
        """Return what was skipped: images first, then by number."""
        found = [
            Skipped(kind, count, names, is_image)
            for (kind, is_image), (count, names) in self._kinds.items()
        ]
        found.sort(key=lambda one: (not one.is_image, -one.count, one.kind))
        if len(found) > _TOLD_MAX:
            rest = found[_TOLD_MAX - 1 :]
            names = sorted(name for one in rest for name in one.names)[:_NAMED]
            found[_TOLD_MAX - 1 :] = [Skipped(_OTHERS, sum(one.count for one in rest), names)]
        return found


def kind_of(name: bytes) -> str:
    """Name the kind of a file by its ending: `.txt`, `.tar.gz`, or no ending."""
    stem, dot, ending = name.lower().rpartition(b".")
    if not dot or not stem:
        return NO_ENDING
    if ending in _PACKED and stem.endswith(b".tar"):
        ending = b"tar." + ending
    text = ending.decode("utf-8", "replace")
    return f".{text}" if 0 < len(text) <= _ENDING_MAX and text.isprintable() else _OTHERS


def tells_nothing(name: bytes) -> bool:
    """Return whether a file's ending is unknown or missing, so that its content must tell."""
    stem, dot, ending = name.rpartition(b".")
    return not (dot and stem and ending.lower().decode("latin-1") in _KNOWN)


def is_image_kind(kind: str) -> bool:
    """Return whether files of this kind are images or may hold images, even if they are not
    read."""
    ending = kind.removeprefix(".")
    return (
        ending in _FOREIGN
        or ending in _RAW
        or ending.encode() in IMAGE_ENDINGS
        or is_shard_kind(kind)
    )


def is_raw(name: bytes) -> bool:
    """Return whether a file's ending is one of raw images."""
    return name.rpartition(b".")[2].lower().decode("latin-1") in _RAW


def is_shard_kind(kind: str) -> bool:
    """Return whether files of this kind are tar files, packed or not."""
    return kind in SHARD_KINDS or kind.startswith(".tar.")


def say_skipped(skipped: Iterable[Skipped]) -> str:
    """Describe in a line what was not read, with the first names."""
    return ", ".join(_say(one) for one in skipped)


def _say(one: Skipped) -> str:
    more = ", ..." if one.count > len(one.names) else ""
    return f"{one.count:,} {one.kind} ({', '.join(map(shown, one.names))}{more})"
