"""Walking a tar shard in WebDataset's layout: members that share a key are one sample.

Where it stands: under `shards`, which makes a data set of several of these. A key is a member's
path up to the first dot of its name: `cat/017.jpg` and `cat/017.cls` are one sample, whose class is
what the second one holds. Members of one key are neighbours. Members that are no images and say
nothing of labels are passed over.

Invariants: only headers of members are read, and the small ones that hold labels; what is not an
ordinary uncompressed tar fails by name; no member is taken to lie outside its shard. Imports no
NumPy.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import IO, Final

import msgspec

from augd.dataset.found import shown
from augd.errors import DatasetError
from augd.pixels.kinds import IMAGE_ENDINGS

_LABEL_BYTES_MAX: Final = 1 << 20


class Member(msgspec.Struct):
    """An image in a shard, with what its neighbours of the same key say of it."""

    path: bytes
    offset: int
    size_bytes: int
    cls: bytes | None = None
    """The content of its `.cls`: a class, by number or name."""
    json: bytes | None = None
    """The content of its `.json`: an object."""


def walk_tar(file: IO[bytes], path: bytes, size_bytes: int) -> Iterator[Member]:
    """Yield the images of a shard, in their order; `path` is for messages.

    Raises:
        DatasetError: not an uncompressed tar, damaged, or cut off.
        OSError: it cannot be read.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as shard:
            yield from _samples(shard, file, path, size_bytes)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, MemoryError) as error:
        raise DatasetError(
            f"shard {shown(path)} is not a whole, uncompressed tar: {error}. Get it again, or "
            f"unpack it (gunzip)."
        ) from None


def _samples(
    shard: tarfile.TarFile, file: IO[bytes], path: bytes, size_bytes: int
) -> Iterator[Member]:
    key: bytes | None = None
    images: list[Member] = []
    said: dict[str, bytes] = {}
    while (info := shard.next()) is not None:
        shard.members.clear()  # type: ignore[attr-defined] # it would keep all that it has seen
        name = os.fsencode(info.name).removeprefix(b"./")
        if not info.isreg() or info.issparse():
            continue
        if info.offset_data + info.size > size_bytes:
            raise DatasetError(
                f"shard {shown(path)}: {shown(name)} ends at byte {info.offset_data + info.size} "
                f"of {size_bytes}. The shard is cut off; get it again."
            )
        here, ending = _split(name)
        if here != key:
            yield from _told(images, said)
            key, images, said = here, [], {}
        last = ending.rpartition(b".")[2]
        if last in IMAGE_ENDINGS:
            images.append(Member(name, info.offset_data, info.size))
        elif ending in (b"cls", b"json"):
            if info.size > _LABEL_BYTES_MAX:
                raise DatasetError(
                    f"shard {shown(path)}: {shown(name)}: expected at most {_LABEL_BYTES_MAX} "
                    f"bytes of labels, got {info.size}"
                )
            file.seek(info.offset_data)  # the walk seeks for itself
            said[ending.decode()] = file.read(info.size)
    yield from _told(images, said)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Cut a member's path into its key and its ending, in lower case."""
    folder, slash, last = name.rpartition(b"/")
    stem, _, ending = last.partition(b".")
    return folder + slash + stem, ending.lower()


def _told(images: list[Member], said: dict[str, bytes]) -> list[Member]:
    for image in images:
        image.cls, image.json = said.get("cls"), said.get("json")
    return images
