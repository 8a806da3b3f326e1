"""What a data set's path may be: a folder of images, one of tar shards, or a manifest file.

Asked before a daemon starts its producers, hence imports nothing that takes time.

Invariants: opens no file, and imports nothing but the standard library's paths.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MANIFEST_SUFFIXES: Final = (".csv", ".jsonl")
IMAGE_SUFFIXES: Final = (b"jpg", b"jpeg", b"png", b"webp")


def is_manifest(path: str | bytes | os.PathLike[str]) -> bool:
    """Say whether a path names a manifest and not a folder, by its ending."""
    name = os.fsdecode(path).lower()
    return name.endswith(MANIFEST_SUFFIXES) and not os.path.isdir(path)


def is_sharded(folder: str | bytes | os.PathLike[str]) -> bool:
    """Say whether a folder holds tar shards: some `.tar`, no folder, and no image beside them."""
    has_tar = False
    try:
        with os.scandir(os.fsencode(folder)) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                ending = entry.name.rpartition(b".")[2].lower()
                if ending in IMAGE_SUFFIXES or entry.is_dir():
                    return False
                has_tar = has_tar or ending == b"tar"
    except OSError:  # named by whoever goes on to read it
        return False
    return has_tar


def dataset_name(path: Path) -> str:
    """Name a data set by its path: the folder's name, or the manifest's without its ending."""
    return path.stem if is_manifest(path) else path.name
