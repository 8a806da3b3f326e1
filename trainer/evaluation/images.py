"""Images of a network's input, as arrays: for a log, or a PNG (`save_png`).

Used after a batch or an evaluation. Draws no random number.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import augd

from ..data.constants import IMAGENET, Constants

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB

_IMAGES_MAX = 32
_GAP_PX = 2


def as_seen(images: Tensor, constants: Constants = IMAGENET) -> Pixels:
    """Turn normalised images (B, 3, H, W) back into grey levels: uint8 (B, H, W, 3)."""
    rows = images.detach().float().cpu()
    mean, std = torch.tensor(constants.mean), torch.tensor(constants.std)
    levels = (rows * std.view(3, 1, 1) + mean.view(3, 1, 1)) * 255
    pixels: Pixels = levels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def contact_sheet(images: Tensor, constants: Constants = IMAGENET) -> Pixels:
    """Put the first normalised images (B, 3, H, W) of a batch side by side."""
    return grid(as_seen(images[:_IMAGES_MAX], constants))


def grid(images: Pixels) -> Pixels:
    """Put images (N, H, W, 3) side by side, about as wide as high; (H', W', 3)."""
    count, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    down, right = height + _GAP_PX, width + _GAP_PX
    sheet = np.zeros((rows * down - _GAP_PX, columns * right - _GAP_PX, 3), np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * down, number % columns * right
        sheet[top : top + height, left : left + width] = image
    return sheet


def save_png(path: Path, image: Pixels) -> None:
    """Write an image, and its folder.

    Raises:
        AugdError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    except OSError as error:
        raise augd.AugdError(f"{path} cannot be written ({error}); choose another --out") from None
