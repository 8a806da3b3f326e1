"""What a data set's path may be, by its name alone: a folder, or a manifest file.

Asked before a daemon starts its producers, hence imports nothing that takes time.

Invariants: reads no file, and imports nothing but the standard library's paths.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MANIFEST_SUFFIXES: Final = (".csv", ".jsonl")


def is_manifest(path: str | bytes | os.PathLike[str]) -> bool:
    """Say whether a path names a manifest and not a folder, by its ending."""
    name = os.fsdecode(path).lower()
    return name.endswith(MANIFEST_SUFFIXES) and not os.path.isdir(path)


def dataset_name(path: Path) -> str:
    """Name a data set by its path: the folder's name, or the manifest's without its ending."""
    return path.stem if is_manifest(path) else path.name
