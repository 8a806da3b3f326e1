"""Sizes as users write them in options, `8GB`, `1.5TB`; and folders with enough free space."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from augd.errors import OptionError, OverLimit

_UNITS: Final = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_SIZE_MAX: Final = 1 << 60


def parse_size(option: str, text: str, size: str, size_min: int) -> int:
    """Read a size, which is a part of an option's text, in bytes.

    Raises:
        OptionError: it is no size, or one below `size_min`.
    """
    found = _SIZE.fullmatch(size)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise OptionError(
            f"{option}: expected a size as 800MB, 8GB, 1.5TB or 8GiB, got {size!r} in {text!r}"
        )
    size_bytes = int(float(found[1]) * unit)
    if not size_min <= size_bytes <= _SIZE_MAX:
        raise OptionError(
            f"{option}: expected at least {size_min >> 20}MiB, got {size!r} in {text!r}"
        )
    return size_bytes


def check_folder(
    option: str, text: str, folder: Path, size_bytes: int, count_held: Callable[[], int]
) -> None:
    """Reject a folder that cannot hold a cache. Creates nothing.

    `count_held` returns how many bytes of the cache are on the disk already.

    Raises:
        OptionError: there is no folder to create it in: a typo, or a disk that isn't there.
        OverLimit: its disk has not that much space.
    """
    parent = folder.parent
    if not folder.is_dir() and not parent.is_dir():
        raise OptionError(
            f"{option} {text}: expected a folder at {parent}, to make {folder.name} in, and found "
            "none: is it mistyped, or its disk not mounted? Else make it first"
        )
    there = folder if folder.is_dir() else parent
    try:
        disk = os.statvfs(there)
    except OSError as error:
        raise OptionError(f"{option} {text}: {there} cannot be used: {error.strerror}") from None
    available = disk.f_bavail * disk.f_frsize
    if available < size_bytes:  # counting the cache takes time
        available += count_held()
    if available < size_bytes:
        raise OverLimit(
            f"{option} {text}: {size_bytes / 1e6:.0f} MB are asked for, {available / 1e6:.0f} MB "
            f"can be given by the disk of {folder}; give it less, or another folder"
        )
