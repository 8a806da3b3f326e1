"""The kinds of datasets: a folder of images, a folder of tar shards, a manifest, an own source.

Or the address of shards in an object store (`dataset/stores/address.py`). Used before a daemon
starts its producers, hence imports nothing slow.

Invariants: opens no file, and imports only the standard library's paths and addresses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from augd.dataset.stores.address import parse_store
from augd.errors import DatasetError, OptionError, counted
from augd.pixels.headers.formats import IMAGE_ENDINGS

MANIFEST_SUFFIXES: Final = (".csv", ".jsonl")
OWN_PREFIX: Final = "plugin:"
_PACKED_SHARDS: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")
# Folders that systems and tools create; none of them is a class.
DEBRIS: Final = frozenset(
    (
        b"__MACOSX",
        b"__pycache__",
        b"lost+found",
        b"@eaDir",
        b"@tmp",
        b"@Recycle",
        b"#recycle",
        b"#snapshot",
        b"$RECYCLE.BIN",
        b"$Recycle.Bin",
        b"RECYCLER",
        b"System Volume Information",
    )
)


@dataclass(frozen=True, slots=True)
class OwnSource:
    """An own source by name: a class of a module, and the text that it is created with, if any."""

    module: str
    class_name: str
    argument: str | None = None

    def __str__(self) -> str:
        more = "" if self.argument is None else f"?{self.argument}"
        return f"{OWN_PREFIX}{self.module}:{self.class_name}{more}"


def parse_own(text: str) -> OwnSource | None:
    """Read `plugin:MODULE:CLASS` or `plugin:MODULE:CLASS?ARGUMENT`; None for anything else.

    Raises:
        OptionError: it begins with `plugin:` and is malformed.
    """
    if not text.startswith(OWN_PREFIX):
        return None
    place, mark, argument = text.removeprefix(OWN_PREFIX).partition("?")
    module, colon, class_name = place.partition(":")
    if not (colon and class_name.isidentifier()) or not all(
        map(str.isidentifier, module.split("."))
    ):
        raise OptionError(
            f"PATH: expected plugin:MODULE:CLASS or plugin:MODULE:CLASS?ARGUMENT, got {text!r}"
        )
    return OwnSource(module, class_name, argument if mark else None)


def refuse_own(path: str | bytes | os.PathLike[str]) -> None:
    """Reject an own source where only files are read.

    Raises:
        DatasetError: it is an own source.
    """
    if os.fsdecode(path).startswith(OWN_PREFIX):
        raise DatasetError(
            f"{os.fsdecode(path)} is an own source, which only daemons and their producers open: "
            "serve, produce, bench and replay. Give a folder, shards or a manifest here"
        )


def why_no_folder(path: str | bytes | os.PathLike[str]) -> str | None:
    """Return what to give in place of a single shard, packed or not; None for other files."""
    name = os.fsdecode(path)
    folder, packed = os.path.dirname(name) or ".", name.lower().endswith(_PACKED_SHARDS)
    if not os.path.isfile(path) or not (packed or name.lower().endswith(".tar")):
        return None
    if packed:
        return f"{name} is a packed archive: unpack it, and give the folder that it makes"
    return f"{name} is one shard: give the folder that it lies in, {folder}"


def is_manifest(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a path names a manifest and not a folder, by its ending."""
    name = os.fsdecode(path).lower()
    return name.endswith(MANIFEST_SUFFIXES) and not os.path.isdir(path)


def is_sharded(folder: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a folder holds tar shards: some `.tar`, and no image below it.

    A `.tar` beside folders with images is most often the archive that they came in.

    Raises:
        DatasetError: images lie loose beside shards, so that either may be meant.
    """
    names, folders = _listed(os.fsencode(folder))
    tars = [name for name in names if name.lower().endswith(b".tar")]
    if not tars:
        return False
    if images := [name for name in names if _has_image_ending(name)]:
        both = f"{os.fsdecode(min(tars))!r} beside {os.fsdecode(min(images))!r}"
        raise DatasetError(
            f"{os.fsdecode(folder)!r} holds {len(tars)} .tar files and, loose beside them, "
            f"{counted(len(images), 'image')} ({both}): which are the dataset? Move the others "
            f"into a folder "
            f"whose name begins with a dot."
        )
    waiting = folders
    while waiting:
        names, folders = _listed(waiting.pop())
        if any(map(_has_image_ending, names)):
            return False
        waiting += folders
    return True


def _listed(folder: bytes) -> tuple[list[bytes], list[bytes]]:
    """List names of files and paths of folders that are not hidden. Links are not followed."""
    names, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(b".") or entry.name in DEBRIS:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    names.append(entry.name)
    except OSError:  # reported by the code that reads it next
        pass
    return names, folders


def _has_image_ending(name: bytes) -> bool:
    return name.rpartition(b".")[2].lower() in IMAGE_ENDINGS


def dataset_name(path: Path | str) -> str:
    """Name a dataset by its path: the folder's name, or the manifest's without its ending.

    One in an object store, whose address is a text, has its folder's name, too.
    """
    if isinstance(path, str):
        return parse_store(path).name
    return path.stem if is_manifest(path) else path.name
