"""What a data set may be: a folder of images, one of tar shards, a manifest file, an own source.

Or the address of shards in an object store (`stores/address.py`).

Asked before a daemon starts its producers, hence imports nothing that takes time.

Invariants: opens no file, and imports nothing but the standard library's paths and addresses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from augd.errors import DatasetError, OptionError
from augd.pixels.kinds import IMAGE_ENDINGS
from augd.stores.address import parse_store

MANIFEST_SUFFIXES: Final = (".csv", ".jsonl")
OWN_PREFIX: Final = "plugin:"


@dataclass(frozen=True, slots=True)
class OwnSource:
    """An own source by name: a class of a module, and the text that it is made with, if any."""

    module: str
    class_name: str
    argument: str | None = None

    def __str__(self) -> str:
        more = "" if self.argument is None else f"?{self.argument}"
        return f"{OWN_PREFIX}{self.module}:{self.class_name}{more}"


def parse_own(text: str) -> OwnSource | None:
    """Read `plugin:MODULE:CLASS` or `plugin:MODULE:CLASS?ARGUMENT`; None for anything else.

    Raises:
        OptionError: it begins so and goes on otherwise.
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
    """Refuse an own source where only files are looked at.

    Raises:
        DatasetError: it is one.
    """
    if os.fsdecode(path).startswith(OWN_PREFIX):
        raise DatasetError(
            f"{os.fsdecode(path)} is an own source, which only daemons and their producers open: "
            "serve, produce, bench and replay. Give a folder, shards or a manifest here"
        )


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
                if ending in IMAGE_ENDINGS or entry.is_dir():
                    return False
                has_tar = has_tar or ending == b"tar"
    except OSError:  # named by whoever goes on to read it
        return False
    return has_tar


def dataset_name(path: Path | str) -> str:
    """Name a data set by its path: the folder's name, or the manifest's without its ending.

    One in an object store, whose address is a text, has its folder's name, too.
    """
    if isinstance(path, str):
        return parse_store(path).name
    return path.stem if is_manifest(path) else path.name
