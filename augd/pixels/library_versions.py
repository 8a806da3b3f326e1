"""What decides pixels outside a recipe: the libraries that decode and resample.

A producer reports their versions when it is ready. They become part of every stream's content, so
that a resume on another version is rejected by name instead of giving other bytes.
"""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec

import cv2
import PIL  # its version alone: importing PIL.Image costs a producer's start 40 ms

from augd.pixels.headers.formats import DECODER, MODULES, PACKAGES
from augd.pixels.headers.size_limits import MAX_PIXELS, max_pixels
from augd.pixels.native import describe_kernels

# Raise it if the code of this package makes other pixels of the same plan.
_RENDERING = "3"


def describe_environment() -> dict[str, str]:
    """Name the decoder, the resampler and the processor family, with their versions.

    NumPy is not among them: of it, only operations are used whose results IEEE 754 fixes.
    """
    found = {
        "rendering": _RENDERING,
        "kernels": describe_kernels(int(cv2.__version__.partition(".")[0])),
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        **{f"{DECODER}{kind}": _installed(kind) for kind in PACKAGES},
    }
    # The limit decides which rows are masked. The default is left out: contents stay as they were.
    if (most := max_pixels()) != MAX_PIXELS:
        found["max_pixels"] = str(most)
    return found


def _installed(kind: str) -> str:
    """Return the package that decodes a format, with its version; "none" if it is missing.

    Found by the name of the folder that an installer leaves beside it: a query by the standard
    library would take longer than the rest of a producer's start.
    """
    package = PACKAGES[kind]
    spec = find_spec(MODULES[kind])
    if spec is None or spec.origin is None:
        return "none"
    start = package.replace("-", "_") + "-"
    beside = os.listdir(os.path.dirname(os.path.dirname(spec.origin)))
    versions = [
        name.removeprefix(start).removesuffix(".dist-info")
        for name in beside
        if name.startswith(start) and name.endswith(".dist-info")
    ]
    return f"{package} {versions[0] if versions else 'of unknown version'}"
