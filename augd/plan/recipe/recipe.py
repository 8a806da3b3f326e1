"""A recipe: the list of ops that every sample goes through, as validated plain data.

A trainer sends a preset's name or plain data. The daemon turns it into a `Recipe` before anything
uses it, and its expanded form is part of the stream's content. Producers plan and render from the
same structs.

Invariants: a `Recipe` that exists gives rows of one size with at most one resample per image. Two
spellings of one recipe expand to the same data, so that they have one digest. Nothing here draws a
number, reads a file or imports NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from augd.errors import RecipeError
from augd.plan.ops.all_ops import OPS_BY_NAME, Op
from augd.plan.recipe.checks import (
    check_device,
    check_ends,
    check_fills,
    check_order,
    check_reduction,
    check_rows,
    check_shuffle,
    check_sized,
    check_views,
    final_extent,
)
from augd.plan.recipe.error_texts import check_names, explain, suggest
from augd.plan.recipe.mix import Mix
from augd.plan.recipe.plain_ops import expand_op, to_toml
from augd.plan.recipe.presets import PRESETS

if TYPE_CHECKING:
    from augd.plan.recipe.op_catalogue import Catalogue

__all__ = [
    "PRESETS",
    "Recipe",
    "expand",
    "output_size",
    "parse_recipe",
    "plain_settings",
    "preset_of",
    "read_toml",
    "recipe_from_toml",
    "recipe_to_toml",
]

# Fields that came after the first version, by their defaults.
_LATER_FIELDS: dict[str, Any] = {
    "fill": "reflect",
    "fill_value": 0.0,
    "colour_on": "producer",
    "exif": "ignore",
    "shuffle_colour": False,
    "views": 1,
    "scaled_decode": "off",
    "background": 0,
    "mix": None,
}


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to each sample: `ops` in their order, and how rows are made of the result.

    `filter` is that of the one resample: `antialias` is a triangle whose support grows with the
    reduction (PIL, torchvision), `bicubic` a cubic that does so, too (PIL, timm), `random` one of
    both, drawn for each row (timm), `linear` the faster 2x2 taps. `fill` is what lies outside the
    image: `reflect` (the edge pixel repeated, dcba|abcd|dcba), `constant` (`fill_value`, grey
    levels as one number or [r, g, b]), `nearest` (the edge pixel) or `wrap`. `colour_on="device"`
    leaves the colour pass to the trainer, in float.

    `exif="apply"` first turns images upright by their EXIF orientation. By default it is ignored,
    as by PIL, torchvision and the ImageNet weights. `shuffle_colour` draws the order of the colour
    ops for each image, all of which must be matrices then. `views` is the number of independent
    draws of each image. `scaled_decode="auto"` decodes images at 1/2, 1/4 or 1/8 if that leaves as
    many pixels as the
    row has: faster for large images, with slightly other pixels. `background` is the colour behind
    transparent parts: whole grey levels as one number or [r, g, b], black by default, or "stored":
    colours as they are stored, whatever their alpha, as Pillow's `convert("RGB")`. `mix` is how the
    client mixes the rows of a batch (`Mix`); producers make them unmixed.
    """

    ops: tuple[Op, ...]
    filter: Literal["antialias", "linear", "bicubic", "random"] = "antialias"
    fill: Literal["reflect", "constant", "nearest", "wrap"] = "reflect"
    fill_value: float | tuple[float, float, float] = 0.0
    colour_on: Literal["producer", "device"] = "producer"
    exif: Literal["ignore", "apply"] = "ignore"
    shuffle_colour: bool = False
    views: int = 1
    scaled_decode: Literal["off", "auto"] = "off"
    background: int | tuple[int, int, int] | Literal["stored"] = 0
    mix: Mix | None = None

    def __post_init__(self) -> None:
        self._check_fill()
        self._check_background()
        check_fills(self.ops, self.fill)
        check_order(self.ops)
        check_sized(self.ops)
        check_ends(self.ops)
        check_reduction(self.ops)
        extent = final_extent(self.ops)
        check_views(self.ops, self.views, extent.height, extent.width)
        if self.shuffle_colour:
            check_shuffle(self.ops)
        if self.colour_on == "device":
            check_device(self.ops)

    @property
    def fill_rgb(self) -> tuple[float, float, float]:
        """Return the grey levels of a constant fill."""
        value = self.fill_value
        return value if isinstance(value, tuple) else (value, value, value)

    @property
    def background_rgb(self) -> tuple[int, int, int] | None:
        """Return the grey levels behind transparent parts; None for stored colours."""
        value = self.background
        if value == "stored":
            return None
        return value if isinstance(value, tuple) else (value, value, value)

    @property
    def num_views(self) -> int:
        """Return how many rows each sample has: independent draws, or those of the view op."""
        return self.ops[-1].num_views * self.views if self.ops else self.views

    def _check_fill(self) -> None:
        red, green, blue = self.fill_rgb
        if not all(0 <= level <= 255 for level in self.fill_rgb):
            raise ValueError(
                f"fill_value: expected grey levels of 0..255, got {brief(self.fill_value)}. "
                "Give one number or [r, g, b]."
            )
        if red == green == blue:
            msgspec.structs.force_setattr(self, "fill_value", red)
        if any(self.fill_rgb) and self.fill != "constant":
            raise ValueError(
                f'fill_value: expected fill="constant" beside it, got fill="{self.fill}". '
                "Take fill_value out or set the fill."
            )

    def _check_background(self) -> None:
        levels = self.background_rgb
        if levels is None:
            return
        if not all(0 <= level <= 255 for level in levels):
            raise ValueError(
                f"background: expected grey levels of 0..255, got {brief(self.background)}. "
                'Give one whole number, [r, g, b] or "stored".'
            )
        if levels[0] == levels[1] == levels[2]:
            msgspec.structs.force_setattr(self, "background", levels[0])


def output_size(recipe: Recipe, first_size_px: tuple[int, int] | None) -> tuple[int, int]:
    """Return (height, width) of every row.

    `first_size_px` is (width, height) of the dataset's first image: it decides when no op
    does. Raises RecipeError when it is needed and None.
    """
    extent = final_extent(recipe.ops)
    if extent.exact:
        return extent.height, extent.width
    if first_size_px is None:
        raise RecipeError(
            "recipe.ops: expected an op that decides the size of the rows, or a first image "
            "whose size they take, got neither. Add a random_resized_crop or a center_crop."
        )
    width, height = first_size_px
    try:
        check_rows(recipe.ops, height, width)
        check_views(recipe.ops, recipe.views, height, width)
    except ValueError as error:
        raise RecipeError(f"recipe.{error}") from None
    return height, width


def parse_recipe(recipe: str | Mapping[str, Any], catalogue: Catalogue | None = None) -> Recipe:
    """Validate a preset's name or plain data, whose ops are those of `catalogue`.

    Without one only the built-in ops are known.

    Raises RecipeError: the path to the value, what was expected and found, and what to do.
    """
    if isinstance(recipe, str):
        recipe = preset_of(recipe)
    known = OPS_BY_NAME if catalogue is None else catalogue.by_name
    recipe_class = Recipe if catalogue is None else catalogue.recipe_class
    check_names(recipe, Recipe.__struct_fields__, known)
    try:
        return msgspec.convert(recipe, recipe_class)
    except msgspec.ValidationError as error:
        raise RecipeError(explain(str(error), recipe, recipe_class, known)) from None


def preset_of(name: str) -> Mapping[str, Any]:
    """Return the plain data of a preset. Raises RecipeError if there is none of the name."""
    if name not in PRESETS:
        raise RecipeError(
            f"recipe: expected one of {', '.join(sorted(PRESETS))}, got {brief(name)}."
            f"{suggest(name, PRESETS)} "
            'Use one of these names, or plain data such as {"ops": [...]}.'
        )
    return PRESETS[name]


def expand(recipe: Recipe) -> dict[str, Any]:
    """Write the recipe as plain data with every default of its ops; None values are left out.

    The recipe's own fields beside `filter` are left out at their defaults, too: contents that were
    computed before a field existed stay equal. Equal recipes give equal data, and
    `parse_recipe(expand(recipe)) == recipe`.
    """
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    ops = [expand_op(op) for op in plain["ops"]]
    later = {
        name: _plain(plain[name])
        for name, default in _LATER_FIELDS.items()
        if plain[name] != default
    }
    return {"filter": plain["filter"], **later, "ops": ops}


def recipe_from_toml(text: str) -> Recipe:
    """Read a recipe from TOML. Raises RecipeError, also when the TOML itself is broken."""
    return parse_recipe(read_toml(text))


def read_toml(text: str) -> dict[str, Any]:
    """Read TOML as plain data, which need not be a recipe. Raises RecipeError when it is broken."""
    import tomllib  # producers never need it, and their start is part of the first batch

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"recipe: expected TOML, got text that does not parse: {error}. "
            "See `augd recipes imagenet` for an example."
        ) from None


def recipe_to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML with every default in it; `recipe_from_toml` reads it back equal."""
    return to_toml({"filter": recipe.filter, **_LATER_FIELDS, **expand(recipe)})


def _plain(value: Any) -> Any:
    """Write a field as JSON and TOML can: a table without its missing values, lists for tuples."""
    if isinstance(value, dict):
        return {key: _as_lists(one) for key, one in value.items() if one is not None}
    return _as_lists(value)


def plain_settings(recipe: Recipe) -> dict[str, Any]:
    """Write all settings of a recipe beside its ops and views as plain data."""
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    return {name: _plain(plain[name]) for name in ("filter", *_LATER_FIELDS) if name != "views"}


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value
