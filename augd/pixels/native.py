"""Loads the native kernels, if this installation has them: regions of JPEGs, resampling, colours.

They are built with the package if a C compiler and libjpeg-turbo are there (`hatch_build.py`).
Without them OpenCV and Pillow do the same work, about half as fast, and resized pixels may differ
by a level. Which of the two is active is part of a stream's content. `AUGD_KERNELS=off` leaves them
out, to compare.

If kernels were built and don't load, OpenCV does the work, too. `trouble` gives the reason, and the
program that starts producers reports it. If they ended processes, the daemon leaves them out by
`AUGD_KERNELS=off:WHY` (`augd/server/supervision/producer_process.py`).

Invariants: the choice is fixed at import; vector instructions give the same numbers.
"""

from __future__ import annotations

import os
from binascii import a2b_base64
from importlib import import_module
from importlib.util import find_spec
from struct import unpack_from
from types import ModuleType
from typing import Any

_VERSION = 8
"""Of what modules and kernels agree on: functions and arguments."""

_PIXELS, _PIXELS_BESIDE_OPENCV_4 = 2, 3
"""Of the pixels that are made with kernels, raised when they become others.

Bent rows were once OpenCV's. Those of OpenCV 5 the kernel makes again, those of 4 it doesn't.
"""

_SWITCH = "AUGD_KERNELS"

_ELF_HEADER_BYTES = 64
# Source: elf(5); of a program header, p_offset and p_filesz say which part of the file is mapped.

# A grey square: a libjpeg of another ABI rejects every image, and reports it only with one.
_TRIAL_SIDE_PX = 8
_TRIAL = (
    "/9j/2wBDAP//////////////////////////////////////////////////////////////////////////////////"
    "////wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8A"
    "P//Z"
)


def _load() -> tuple[Any, str]:
    """Return the kernels or None, and why they are not used although they were built."""
    switch, _, ended = os.environ.get(_SWITCH, "").partition(":")
    found = find_spec("augd.pixels._kernels")
    if found is None:
        return None, ""
    if switch.lower() in ("off", "0", "no", "false"):
        return None, f"the native kernels are left out: {ended}" if ended else ""
    path = found.origin or ""
    try:
        _check_whole(path)
        return _checked(import_module("augd.pixels._kernels")), ""
    except (ImportError, OSError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        return None, f"the native kernels don't load: {why.removeprefix(f'{path}: ')}"


def _check_whole(path: str) -> None:
    """Reject a library of which a part is missing: loading it would end the process (SIGBUS)."""
    if not path.endswith(".so"):
        return
    with open(path, "rb") as file:
        head, size = file.read(_ELF_HEADER_BYTES), os.fstat(file.fileno()).st_size
        if head[:6] != b"\x7fELF\2\1" or len(head) < _ELF_HEADER_BYTES:
            return  # not for 64 bits: the loader reports what it is instead
        offset, entry_size, num_entries = (
            *unpack_from("<Q", head, 32),
            *unpack_from("<HH", head, 54),
        )
        file.seek(offset)
        table = file.read(entry_size * num_entries)
    needed = offset + entry_size * num_entries
    for at in range(0, len(table) - entry_size + 1, entry_size):
        start, length = *unpack_from("<Q", table, at + 8), *unpack_from("<Q", table, at + 32)
        needed = max(needed, start + length)
    if needed > size:
        raise ImportError(
            f"{path} is damaged: expected {needed} bytes or more, got {size}. Reinstall augd"
        )


def _checked(found: ModuleType) -> ModuleType:
    version = getattr(found, "VERSION", None)
    if version != _VERSION:
        raise ImportError(
            f"{found.__file__} is of another version: expected {_VERSION}, got {version}. Build it "
            "again: python -m pip install -e . in the checkout of augd"
        )
    try:
        side = _TRIAL_SIDE_PX
        pixels = memoryview(bytearray(side * side * 3)).cast("B", (side, side, 3))
        found.decode_jpeg(a2b_base64(_TRIAL), pixels, side, side, 0, 0, 1)
    except found.DecodeError as error:
        raise ImportError(
            f"{found.__file__} was built for another libjpeg than it found here ({error}). Install "
            "libjpeg-turbo, or reinstall augd"
        ) from None
    return found


kernels: Any
"""The extension module, described in `_kernels.pyi`; None where there is none."""

trouble: str
"""Why kernels that were built are not used, in a line; empty where all is well."""

kernels, trouble = _load()


def has_own_entropy_decoder() -> bool:
    """Return whether segments of a JPEG are decoded where they lie."""
    return kernels is not None and bool(kernels.HAS_OWN_ENTROPY_DECODER)


def describe_kernels(opencv_major: int) -> str:
    """Describe what makes pixels beside such an OpenCV, for a stream's content.

    libjpeg-turbo's version is that of the headers: a library does not report its own.
    """
    if kernels is None:
        return "none"
    pixels = _PIXELS if opencv_major >= 5 else _PIXELS_BESIDE_OPENCV_4
    return f"{pixels}, libjpeg-turbo {kernels.LIBJPEG_TURBO}"
