"""What outside a recipe decides pixels: the libraries that decode and resample.

A producer reports it when it is ready; it becomes part of every stream's content, so that
a resume on another version is refused by name instead of giving other bytes.
"""

from __future__ import annotations

import importlib.metadata
import platform

import cv2


def describe_environment() -> dict[str, str]:
    """Name the decoder, the resampler and the processor family, with their versions."""
    return {
        "opencv": cv2.__version__,
        "pillow": importlib.metadata.version("pillow"),
        "machine": platform.machine(),
    }
