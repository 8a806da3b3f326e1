"""The native kernels, where this installation has them: regions of JPEGs, resampling, colours.

Beside the modules that use them. They are built with the package when a C compiler and
libjpeg-turbo are there (`hatch_build.py`); without them OpenCV and Pillow do the same work, about
half as fast, and resized pixels may differ by a level. Which of the two is active is part of a
stream's content. `AUGD_KERNELS=off` leaves them out, to compare.

Invariants: nothing is chosen after the import; the same numbers with vector instructions and
without.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import Any

_VERSION = 4
"""Of what modules and kernels agree on: functions and arguments."""

_PIXELS, _PIXELS_BESIDE_OPENCV_4 = 2, 3
"""Of the pixels that are made with kernels, raised when they become others.

Bent rows were once OpenCV's. Those of OpenCV 5 the kernel makes again, those of 4 it doesn't.
"""

_SWITCH = "AUGD_KERNELS"


def _load() -> Any:
    if os.environ.get(_SWITCH, "").lower() in ("off", "0", "no", "false"):
        return None
    try:
        # Not `from augd.pixels import _kernels`: that tells a module that was never built from
        # one that doesn't load by nothing but its words.
        found = import_module("augd.pixels._kernels")
    except ModuleNotFoundError:
        return None
    except ImportError as error:  # built here, but what it is linked with has gone
        raise ImportError(
            f"augd's kernels don't load: {error}. Install libjpeg-turbo or augd anew, or do "
            f"without them: {_SWITCH}=off"
        ) from error
    return _checked(found)


def _checked(found: ModuleType) -> ModuleType:
    version = getattr(found, "VERSION", None)
    if version != _VERSION:
        raise ImportError(
            f"augd's kernels are of another version: expected {_VERSION}, got {version}, from "
            f"{found.__file__}. Build them anew: `make setup` in a checkout, "
            f"`pip install --force-reinstall augd` otherwise"
        )
    return found


kernels: Any = _load()
"""The extension module, described in `_kernels.pyi`; None where there is none."""


def has_own_entropy_decoder() -> bool:
    """Say whether segments of a JPEG are decoded where they lie."""
    return kernels is not None and bool(kernels.HAS_OWN_ENTROPY_DECODER)


def describe_kernels(opencv_major: int) -> str:
    """Name what makes pixels beside such an OpenCV, as it becomes part of a stream's content.

    libjpeg-turbo's version is that of the headers: a library says none of its own.
    """
    if kernels is None:
        return "none"
    pixels = _PIXELS if opencv_major >= 5 else _PIXELS_BESIDE_OPENCV_4
    return f"{pixels}, libjpeg-turbo {kernels.LIBJPEG_TURBO}"
