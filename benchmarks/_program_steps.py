"""The steps of programs for `benchmarks.kernels`: each against the plain colour pass and a library.

Each side but Pillow begins with a copy of the same row, since steps act in place. Pillow's ops make
an image of their own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from augd.pixels.boxes import FilledBox, fill_boxes
from augd.pixels.colour_matrix import ColourPass
from augd.pixels.decode import Pixels
from augd.pixels.program import ProgramPass
from augd.plan.program import MATRIX_SIZE, Program, StepKind

Work = Callable[[Any], object]
Steps = Sequence[tuple[StepKind, Sequence[float]]]

_SIDE_PX = 224
_TINT = (1.1, -0.1, 0.05, 3.0, 0.02, 0.9, 0.1, -4.0, -0.05, 0.1, 1.2, 2.0)
_SIGMA = 2.0
_QUALITY = 75
_STD = 20.0

_STEPS: Mapping[str, Steps] = {
    "matrix with a mean": [(StepKind.MATRIX, (0,))],
    "posterize": [(StepKind.POSTERIZE, (4,))],
    "three tables": [
        (StepKind.POSTERIZE, (4,)),
        (StepKind.SOLARIZE, (128,)),
        (StepKind.INVERT, ()),
    ],
    "equalize": [(StepKind.EQUALIZE, ())],
    "autocontrast": [(StepKind.AUTOCONTRAST, ())],
    "sharpness": [(StepKind.SHARPNESS, (1.9,))],
    "blur, sigma 0.5": [(StepKind.BLUR, (0.5, 0))],
    "blur, sigma 2": [(StepKind.BLUR, (_SIGMA, 0))],
    "noise": [(StepKind.NOISE, (_STD, 1, 2))],
    "JPEG": [(StepKind.JPEG, (_QUALITY,))],
}


def step_cases() -> list[tuple[str, dict[str, Work]]]:
    """Return what is compared for each step: its name, and its sides by name, augd's first."""
    rows = np.random.default_rng(0).integers(0, 256, (_SIDE_PX // 8, _SIDE_PX // 8, 3), np.uint8)
    size = _SIDE_PX, _SIDE_PX
    row = np.asarray(cv2.resize(rows, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    out, colour_pass = np.empty_like(row), ColourPass()
    colour = [list(_TINT[start : start + 4]) for start in (0, 4, 8)]

    def recolour() -> None:
        colour_pass.apply(colour, None, out)

    libraries = _libraries(row, out)
    cases = []
    for name, steps in _STEPS.items():
        sides = {"augd": _on_copies(row, out, _run(steps, out))}
        sides["colour pass"] = _on_copies(row, out, recolour)
        cases.append((name, sides | libraries.get(name, {})))
    boxes = [FilledBox((40, 50, 110, 90), None, 7)]
    fills = {
        "augd": _on_copies(row, out, lambda: fill_boxes(out, boxes)),
        "colour pass": _on_copies(row, out, recolour),
    }
    return [*cases, ("a box of noise, a fifth of the row", fills)]


def _on_copies(row: Pixels, out: Pixels, act: Callable[[], object]) -> Work:
    def work(_: object) -> None:
        np.copyto(out, row)
        act()

    return work


def _run(steps: Steps, out: Pixels) -> Callable[[], None]:
    kinds = np.array([[kind for kind, _ in steps]], np.uint8)
    values = np.zeros((1, len(steps), 4))
    for number, (_, given) in enumerate(steps):
        values[0, number, : len(given)] = given
    matrices = np.zeros((1, 1, MATRIX_SIZE))
    matrices[0, 0] = (*_TINT, *(9 * [0.01]))
    program = Program(kinds, values, matrices, np.zeros((1, 0, 256), np.uint8))
    program_pass = ProgramPass(_SIDE_PX, _SIDE_PX)
    return lambda: program_pass.run(program, 0, out)


def _libraries(row: Pixels, out: Pixels) -> dict[str, dict[str, Work]]:
    image = Image.fromarray(row)

    def pillow(act: Callable[[Image.Image], object]) -> dict[str, Work]:
        return {"Pillow": lambda _: act(image)}

    def blur(sigma: float) -> dict[str, Work]:
        side = 2 * max(1, int(np.ceil(3 * sigma))) + 1
        return {
            "Pillow": lambda _: image.filter(ImageFilter.GaussianBlur(sigma)),
            "OpenCV": lambda _: cv2.GaussianBlur(row, (side, side), sigma, dst=out),
        }

    def recompress(image: Image.Image) -> None:
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=_QUALITY)
        Image.open(encoded).load()

    def add_noise(_: object) -> None:
        noise: Any = np.random.default_rng(1).normal(0.0, _STD, row.shape)
        np.copyto(out, np.clip(row + noise.astype(np.int16), 0, 255), casting="unsafe")

    return {
        "posterize": pillow(lambda image: ImageOps.posterize(image, 4)),
        "three tables": pillow(
            lambda image: ImageOps.invert(ImageOps.solarize(ImageOps.posterize(image, 4)))
        ),
        "equalize": pillow(ImageOps.equalize),
        "autocontrast": pillow(ImageOps.autocontrast),
        "sharpness": pillow(lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
        "blur, sigma 0.5": blur(0.5),
        "blur, sigma 2": blur(_SIGMA),
        "noise": {"NumPy": add_noise},
        "JPEG": pillow(recompress),
    }
