"""Published recipes beside their own code: the same photos, the same drawn parameters.

    python -m benchmarks.originals [--photos DIR] [--epochs N] [PRESET ...]

Prints the mean difference per pixel and channel, in grey levels, between the rows of a preset and
what the published functions make of the photo with the parameters that augd drew: torchvision's or
timm's ops of policies on PIL images, Pillow's resize, blur and solarize, torchvision's jitter.
Boxes that are erased are left out: noise can't be the same.

A preset with a policy of timm's needs timm in the environment that this runs in.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from augd.diagnostics.sample_renderer import SampleRenderer, View
from augd.plan.recipe.phases import parse_stream_recipe
from augd.plan.recipe.recipe import Recipe
from benchmarks._report import lent_photos

Step = Mapping[str, Any]
PilOp = Callable[[Image.Image, Step], Image.Image]

LIBRARY_OF: Final[Mapping[str, str]] = {
    "eval": "torchvision",
    "eval-232": "torchvision",
    "eval-bicubic": "timm",
    "eval-bicubic-95": "timm",
    "torchvision-v1": "torchvision",
    "torchvision-v2": "torchvision",
    "ultralytics-classify": "torchvision",
    "timm-a1": "timm",
    "timm-a3": "timm",
    "deit": "timm",
    "deit3": "timm",
    "mae": "timm",
    "openclip": "timm",
    "simclr": "torchvision",
    "byol": "torchvision",
    "dino": "torchvision",
    "dinov2": "torchvision",
}
"""Whose code each preset is compared with."""

_RESAMPLING: Final = {
    "antialias": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_GEOMETRIC: Final = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_BLENDS: Final = ("brightness", "color", "contrast", "sharpness")
_NUMBERS: Final = ("shear", "pixels", "degrees", "factor", "bits", "threshold", "add", "sigma")


class Difference(NamedTuple):
    """Of all rows of a preset, in grey levels: the mean, and that of the worst row."""

    mean: float
    worst: float
    num_rows: int


def compare(photos: Path, preset: str, epochs: int, library: str = "") -> Difference:
    """Make every photo's row by augd, and by the library, and compare them."""
    recipe = parse_stream_recipe(preset)
    groups = recipe.at(0).groups
    originals = [
        Original(group.recipe, library or LIBRARY_OF[preset])
        for group in groups
        for _ in range(group.recipe.num_views)
    ]
    found = []
    with SampleRenderer(str(photos), recipe, 0) as renderer:
        for sample in renderer.first_ids(0, renderer.index.num_samples):
            encoded = renderer.read(sample)
            photo = Image.fromarray(encoded.decode_all())
            for epoch in range(epochs):
                drawn = renderer.drawn(sample, epoch, encoded.header)
                made = zip(originals, drawn.views, renderer.rows(encoded, drawn), strict=True)
                for original, view, row in made:
                    other, is_compared = original.row(photo, view, (row.shape[1], row.shape[0]))
                    apart = np.abs(row.astype(np.int16) - other.astype(np.int16))
                    found.append(float(apart[is_compared].mean()) if is_compared.any() else 0.0)
    return Difference(float(np.mean(found)), max(found), len(found))


class Original:
    """Makes rows by the functions of another library, from what augd drew."""

    def __init__(self, recipe: Recipe, library: str) -> None:
        """Take the filter and the fill of the recipe."""
        self._filter = _RESAMPLING[recipe.filter]
        self._fill = tuple(round(level) for level in recipe.fill_rgb)
        self._policy_op: PilOp = self._by_timm if library == "timm" else self._by_torchvision

    def row(
        self, photo: Image.Image, view: View, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the row of `size` (width, height), and which pixels of it can be compared."""
        left, top, width, height = view.crop
        # Cut first, as torchvision and timm do: Pillow's own box would be read beyond its edges.
        image = photo.crop((left, top, left + width, top + height))
        image = image.resize(view.scaled, self._filter)
        left, top = view.window
        image = image.crop((left, top, left + size[0], top + size[1]))
        if view.mirror:
            image = ImageOps.mirror(image)
        is_compared = np.ones((size[1], size[0]), np.bool_)
        for step in view.steps:
            if step.drawn is None:
                continue
            if step.op == "erase":
                for x, y, width, height in _boxes(step.drawn):
                    is_compared[y : y + height, x : x + width] = False
                continue
            for layer in step.drawn.get("layers", ()):
                # DeiT III's own code calls Pillow's functions.
                is_three = step.op == "three_augment"
                apply = _THREE[layer["op"]] if is_three else self._policy_op
                image = apply(image, layer)
            if step.op in _SINGLE:
                image = _SINGLE[step.op](image, step.drawn)
        return np.asarray(image), is_compared

    def _by_torchvision(self, image: Image.Image, layer: Step) -> Image.Image:
        module = import_module("torchvision.transforms.autoaugment")
        modes = module.InterpolationMode
        mode = modes.BICUBIC if self._filter == Image.Resampling.BICUBIC else modes.BILINEAR
        name = "".join(word.title() for word in layer["op"].split("_"))
        name = "AutoContrast" if name == "Autocontrast" else name
        number = _number_of(layer) - (1.0 if layer["op"] in _BLENDS else 0.0)
        made: Image.Image = module._apply_op(image, name, number, mode, list(self._fill))
        return made

    def _by_timm(self, image: Image.Image, layer: Step) -> Image.Image:
        module = import_module("timm.data.auto_augment")
        name, number = layer["op"], _number_of(layer)
        made: Image.Image
        if name in ("autocontrast", "equalize", "invert"):
            made = getattr(module, "auto_contrast" if name == "autocontrast" else name)(image)
        elif name in _GEOMETRIC:
            if name.startswith("translate"):  # timm's sign is that of the map into the image
                name, number = f"{name}_abs", -number
            more = {"resample": self._filter, "fillcolor": self._fill}
            made = getattr(module, name)(image, number, **more)
        else:
            number = int(number) if name in ("posterize", "solarize_add") else number
            made = getattr(module, name)(image, number)
        return made


def _number_of(layer: Step) -> float:
    return next((float(layer[name]) for name in _NUMBERS if name in layer), 0.0)


def _boxes(drawn: Step) -> Iterable[tuple[int, int, int, int]]:
    for box in drawn.get("boxes", (drawn,)):
        yield box["x"], box["y"], box["width"], box["height"]


def _jitter(image: Image.Image, drawn: Step) -> Image.Image:
    """Apply torchvision's adjustments in the drawn order, in which they stand.

    Its hue turns the other way. Turns are drawn with either sign alike.
    """
    functional = import_module("torchvision.transforms.functional")
    for name, number in drawn.items():
        factor = -number / 360 if name == "hue" else number
        image = getattr(functional, f"adjust_{name}")(image, factor)
    return image


def _grey(image: Image.Image, _: Step) -> Image.Image:
    return image.convert("L").convert("RGB")


def _blur(image: Image.Image, drawn: Step) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(drawn["sigma"]))


def _solarize(image: Image.Image, drawn: Step) -> Image.Image:
    return ImageOps.solarize(image, drawn["threshold"])


_THREE: Final[Mapping[str, PilOp]] = {"color": _grey, "solarize": _solarize, "blur": _blur}
_SINGLE: Final[Mapping[str, PilOp]] = {
    "color_jitter": _jitter,
    "grayscale": _grey,
    "gaussian_blur": _blur,
    "solarize": _solarize,
}


def main() -> None:
    """Print a line for each preset."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.originals")
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=", ".join(LIBRARY_OF))
    parser.add_argument(
        *("--photos", "--data"), type=Path, help="a folder of JPEGs [some are made]"
    )
    parser.add_argument("--epochs", type=int, default=2, help="rows of each photo [2]")
    options = parser.parse_args()
    with lent_photos(options.photos) as photos:
        for preset in options.presets or LIBRARY_OF:
            found = compare(photos, preset, options.epochs)
            print(
                f"{preset:22}{LIBRARY_OF[preset]:12} mean {found.mean:5.2f}, worst row "
                f"{found.worst:5.2f} grey levels, {found.num_rows} rows",
                flush=True,
            )


if __name__ == "__main__":
    main()
