"""The recipes of a run: one for training, one for validation.

Runs in the training process, before the streams open. Validation gets images of the same size, cut
from the centre, without randomness. The daemon checks the ops; nothing here does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import augd

# torchvision's models are trained at 224 px and validated on the middle of a short side of 256.
_SHORT_PER_SIDE = 256 / 224
_DEFAULT_SIDE_PX = 224
_PRESETS = ("imagenet", "eval", "keras-small", "none")
_KERAS_SIDE_PX = 180
# He et al. 2015, section 3.4: the scales of the test, for crops of 224.
_SHORTS = (224, 256, 384, 480, 640)
# Ops without randomness: those of a recipe that only resizes.
_CERTAIN = ("resize", "center_crop")
# Ops of test time, which make several images of one.
_VIEWS = ("five_crop", "ten_crop", "multi_scale")
_CROPS = ("random_resized_crop", "random_crop", "scale_jitter")

Plain = dict[str, Any]


class Recipes(NamedTuple):
    """Plain data for both streams, and (height, width) where the recipe decides it."""

    training: str | Plain
    validation: str | Plain
    size_px: tuple[int, int] | None


def choose_recipes(recipe: str | Mapping[str, Any], side_px: int | None) -> Recipes:
    """Make both recipes from a preset's name, a TOML file or a recipe, and `--size`.

    Raises:
        RecipeError: neither a preset nor a readable file.
        OptionError: a size for a recipe that has its own, or a recipe that makes views.
    """
    if not isinstance(recipe, str):
        _refuse_size(side_px, "a recipe says the size itself: change it there")
        return _of_plain(dict(recipe))
    if recipe.endswith(".toml") or "/" in recipe:
        _refuse_size(side_px, "a TOML file says the size itself: change it there")
        return _of_plain(_read(recipe))
    if recipe not in _PRESETS:
        return _published(recipe, side_px)
    if recipe == "none":
        _refuse_size(side_px, 'recipe "none" takes the images as they are')
        return Recipes("none", "none", None)
    if recipe == "keras-small":
        return _of_plain(keras_recipe(side_px or _KERAS_SIDE_PX))
    side_px = side_px or _DEFAULT_SIDE_PX
    evaluation = evaluation_recipe((side_px, side_px))
    training = imagenet_recipe(side_px) if recipe == "imagenet" else evaluation
    return Recipes(training, evaluation, (side_px, side_px))


def _published(name: str, side_px: int | None) -> Recipes:
    """Make both recipes of a published preset."""
    try:
        found = augd.preset_recipes(name, side_px)
    except augd.RecipeError:
        raise augd.RecipeError(
            f"recipe: expected {', '.join(_PRESETS)}, a published preset (augd recipes) or a TOML "
            f"file, got {name!r}. Of another preset make a file: augd recipes NAME > my.toml, then "
            "--recipe my.toml."
        ) from None
    _refuse_views(found.training)
    is_plain = not found.evaluation["ops"]
    return Recipes(
        found.training, "none" if is_plain else found.evaluation, _size_of(found.training)
    )


def imagenet_recipe(side_px: int) -> Plain:
    """Write the preset `imagenet` for another size."""
    crop = {"op": "random_resized_crop", "size": side_px}
    return {"ops": [crop, {"op": "mirror", "p": 0.5}, {"op": "pca", "alpha_std": 0.1}]}


def keras_recipe(side_px: int) -> Plain:
    """Write the preset `keras-small` for another size."""
    ops: list[Plain] = [{"op": "resize", "size": [side_px, side_px]}, {"op": "mirror", "p": 0.5}]
    return {"ops": [*ops, {"op": "rotate", "factor": 0.1}, {"op": "zoom", "height": 0.2}]}


def evaluation_recipe(size_px: tuple[int, int], image_filter: str = "antialias") -> Plain:
    """Write the preset `eval` for another (height, width): 256 of the short side to 224."""
    short = round(max(size_px) * _SHORT_PER_SIDE)
    window = {"op": "center_crop", "size": list(size_px)}
    return {"ops": [{"op": "resize", "short": short}, window], "filter": image_filter}


def views_recipe(views: str, size_px: tuple[int, int], image_filter: str = "antialias") -> Plain:
    """Write the presets `ten-crop` and `multi-scale` for another (height, width)."""
    size = list(size_px)
    if views == "ten-crop":
        plain = evaluation_recipe(size_px, image_filter)
        return {**plain, "ops": [plain["ops"][0], {"op": "ten_crop", "size": size}]}
    shorts = [round(max(size_px) * short / _DEFAULT_SIDE_PX) for short in _SHORTS]
    return {"ops": [{"op": "multi_scale", "short": shorts, "crop": size}], "filter": image_filter}


def _of_plain(plain: Plain) -> Recipes:
    """Make both recipes; that of phases is validated with the size of its last one."""
    if phases := _phases_of(plain):
        last = [_of_plain(phase) for phase in phases][-1]
        return last._replace(training=plain)
    _refuse_views(plain)
    size_px = _size_of(plain)
    if size_px is None:
        return Recipes(plain, "none", None)
    image_filter = plain.get("filter", "antialias")
    if image_filter == "random":
        image_filter = "bicubic"  # what timm validates with by default
    if certain := _certain_part(plain):
        filtered = {"filter": image_filter} if "filter" in plain else {}
        kept = {name: value for name, value in plain.items() if name != "mix"}
        return Recipes(plain, {**kept, **filtered, "ops": certain}, size_px)
    return Recipes(plain, evaluation_recipe(size_px, image_filter), size_px)


def sizes_of_phases(plain: str | Plain) -> list[tuple[int, int]]:
    """Return the (height, width) of the rows of a schedule, each once; none without phases."""
    phases = [] if isinstance(plain, str) else _phases_of(plain)
    sizes = [_size_of(phase) for phase in phases]
    return list(dict.fromkeys(size for size in sizes if size is not None))


def _phases_of(plain: Plain) -> list[Plain]:
    """Return the recipes of a schedule; none where the recipe is no schedule of mappings."""
    phases = plain.get("phases")
    if not isinstance(phases, list) or not all(isinstance(one, dict) for one in phases):
        return []
    return [{key: value for key, value in one.items() if key != "from_epoch"} for one in phases]


def _refuse_views(plain: Plain) -> None:
    """Refuse rows of several images; what makes no sense otherwise the daemon will refuse."""
    ops = plain.get("ops")
    names = [op.get("op") for op in ops if isinstance(op, dict)] if isinstance(ops, list) else []
    found = [name for name in names if name in _VIEWS]
    if isinstance(plain.get("views"), list):
        found.append("[[views]]")
    elif plain.get("views", 1) != 1:
        found.append(f"views = {plain['views']!r}")
    if found:
        raise augd.OptionError(
            f"--recipe: {found[0]} makes several views of each image, and training takes one: "
            "expected a recipe without views; take it out, and ask for views afterwards with "
            "trainer evaluate --views"
        )


def _size_of(plain: Plain) -> tuple[int, int] | None:
    """Find what the last op that says a size says; what makes no sense the daemon will refuse."""
    ops = plain.get("ops")
    sizing = [op for op in ops if op.get("op") != "cutout"] if isinstance(ops, list) else []
    named = [op.get("size", op.get("longest")) for op in sizing]
    sizes = [size for size in named if size is not None]
    match sizes[-1:]:
        case [int(side_px)]:
            return side_px, side_px
        case [[int(height), int(width)]]:
            return height, width
    return None


def _certain_part(plain: Plain) -> list[Plain]:
    """Return the ops that resize, of a recipe that crops nothing by chance."""
    if any(op.get("op") in _CROPS for op in plain["ops"]):
        return []
    return [op for op in plain["ops"] if op.get("op") in _CERTAIN]


def with_mix(recipes: Recipes, mixup: float, cutmix: float, smoothing: float) -> Recipes:
    """Mix the training images, with the alphas given; 0 leaves what the recipe says.

    The soft targets of mixed images are smoothed with them.
    """
    training = recipes.training
    plain: Plain = {"ops": []} if training == "none" else dict(training)  # type: ignore[arg-type]
    if phases := plain.get("phases"):
        alphas = mixup, cutmix, smoothing
        mixed = [with_mix(recipes._replace(training=phase), *alphas).training for phase in phases]
        return recipes._replace(training={"phases": mixed})
    mix = dict(plain.get("mix") or {})
    mix |= {name: alpha for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha}
    if not mix:
        return recipes
    if smoothing:
        mix["smoothing"] = smoothing
    return recipes._replace(training={**plain, "mix": mix})


def _read(path: str) -> Plain:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise augd.RecipeError(
            f"recipe: {path} cannot be read ({error}). See `augd recipes imagenet` for an example."
        ) from None


def _refuse_size(side_px: int | None, why: str) -> None:
    if side_px is not None:
        raise augd.OptionError(f"--size: {why}; leave --size out")
