"""Pictures for policies, and their ops as torchvision, timm and big_vision apply them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from augd.pixels.decode import Pixels
from demo.photos import make_photo

FILL = (124, 116, 104)
WIDTH, HEIGHT = 112, 96


def make_pictures() -> dict[str, Pixels]:
    rng = np.random.default_rng(5)
    photo = Image.open(io.BytesIO(make_photo("pebbles", 8, megapixels=0.1))).convert("RGB")
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return {
        "photo": np.asarray(photo.resize((WIDTH, HEIGHT), Image.Resampling.BOX)),
        "noise": rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        "flat": np.full((HEIGHT, WIDTH, 3), 93, np.uint8),
        "two-valued": np.where(rng.random((HEIGHT, WIDTH, 3)) < 0.3, 40, 200).astype(np.uint8),
        "smooth": np.stack([2 * x, 2 * y, x + y], axis=2).astype(np.uint8),
    }


PICTURES = make_pictures()

_THEIRS = {
    "shear_x": ("ShearX", "shear"),
    "shear_y": ("ShearY", "shear"),
    "translate_x": ("TranslateX", "pixels"),
    "translate_y": ("TranslateY", "pixels"),
    "rotate": ("Rotate", "degrees"),
    "brightness": ("Brightness", "factor"),
    "color": ("Color", "factor"),
    "contrast": ("Contrast", "factor"),
    "sharpness": ("Sharpness", "factor"),
    "posterize": ("Posterize", "bits"),
    "solarize": ("Solarize", "threshold"),
    "autocontrast": ("AutoContrast", ""),
    "equalize": ("Equalize", ""),
    "invert": ("Invert", ""),
}


def act(image: Image.Image, layer: Mapping[str, Any]) -> Image.Image:
    """Apply one op as torchvision does, or as timm and big_vision do what it lacks."""
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    bilinear = pytest.importorskip("torchvision.transforms").InterpolationMode.BILINEAR
    match layer["op"]:
        case "solarize_add":
            table = [min(255, v + int(layer["add"])) if v < 128 else v for v in range(256)]
            return image.point(table * 3)
        case "blur":
            return image.filter(ImageFilter.GaussianBlur(layer["sigma"]))
        case "cutout":
            pixels, half = np.array(image), int(layer["half_side"])
            x, y = map(int, layer["centre"])
            pixels[max(0, y - half) : y + half, max(0, x - half) : x + half] = 128
            return Image.fromarray(pixels)
        case "translate_x" | "translate_y" if layer["pixels"] != int(layer["pixels"]):
            moved = (-layer["pixels"], 0) if layer["op"] == "translate_x" else (0, -layer["pixels"])
            return image.transform(
                image.size,
                Image.Transform.AFFINE,
                (1, 0, moved[0], 0, 1, moved[1]),
                Image.Resampling.BILINEAR,
                fillcolor=FILL,
            )
        case "posterize":
            return ImageOps.posterize(image, int(layer["bits"]))
    name, number = _THEIRS[layer["op"]]
    magnitude = layer[number] - (1.0 if number == "factor" else 0.0) if number else 0.0
    return autoaugment._apply_op(image, name, magnitude, bilinear, list(FILL))
