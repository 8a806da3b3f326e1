"""What outside a recipe decides pixels: the libraries that decode and resample.

A producer reports it when it is ready; it becomes part of every stream's content, so that
a resume on another version is refused by name instead of giving other bytes.
"""

from __future__ import annotations

import platform

import cv2
import PIL  # its version alone: importing PIL.Image costs a producer's start 40 ms


def describe_environment() -> dict[str, str]:
    """Name the decoder, the resampler and the processor family, with their versions."""
    return {
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
    }
