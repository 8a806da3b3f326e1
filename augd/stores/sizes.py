"""Sizes as people write them on the command line: `8GB`, `1.5TB`, `512MiB`."""

from __future__ import annotations

import re
from typing import Final

from augd.errors import OptionError

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
