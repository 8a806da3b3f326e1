"""View groups: several rows of each image, by recipes of their own.

A list under `views` has groups with a name, a number of views and a recipe, which takes the
settings beside the list unless it has its own. Views of one name are one array of the batch.

Invariants: groups of one name have rows of one size; the views of a sample are numbered through all
groups, so that no two share a random word. Nothing here draws a number or imports NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, Final

from augd.errors import RecipeError
from augd.plan.ops.base import name_of
from augd.plan.recipe.checks import MAX_SAMPLE_AREA_PX, MAX_VIEWS, final_extent
from augd.plan.recipe.error_texts import suggest
from augd.plan.recipe.recipe import Recipe, output_size, parse_recipe

if TYPE_CHECKING:
    from augd.plan.recipe.op_catalogue import Catalogue

# One decode serves all views of an image, and one device all colours of a batch.
SHARED_KEYS: Final = ("colour_on", "exif", "scaled_decode", "background")
_GROUP_KEYS: Final = ("name", "count", "size", "ops")
# What takes the size of a group, if it says none of its own.
_SIZED: Final = ("random_resized_crop", "random_crop", "center_crop")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
VIEWS_EXAMPLE: Final = '[{"name": "global", "count": 2, "ops": [...]}, ...]'

Size = tuple[int, int]
"""(height, width) of a row."""


@dataclass(frozen=True, slots=True)
class ViewGroup:
    """Views that one recipe makes: `recipe.views` of them.

    `name` is that of their array, empty for a plain recipe. `first_view` is the number of the first
    one among all views of a sample, and `place` its number in the array of its name.
    """

    name: str
    recipe: Recipe
    first_view: int = 0
    place: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """The view groups of a stream from an epoch on: one without a name for a plain recipe."""

    groups: tuple[ViewGroup, ...]
    from_epoch: int = 0

    @property
    def is_grouped(self) -> bool:
        """Return whether the rows are in views with names."""
        return bool(self.groups[0].name)

    @property
    def num_views(self) -> int:
        """Return how many rows each sample has."""
        return sum(group.recipe.num_views for group in self.groups)

    @property
    def shared(self) -> Recipe:
        """Return a recipe that has the settings which all groups share."""
        return self.groups[0].recipe

    def sizes(self, first_size_px: Size | None) -> tuple[Size, ...]:
        """Return (height, width) of the rows of each group.

        `first_size_px` is (width, height) of the dataset's first image. Raises RecipeError when a
        group needs it and it is None, or does not fit it.
        """
        sizes = tuple(output_size(group.recipe, first_size_px) for group in self.groups)
        if self.is_grouped:
            _check_sizes(self.groups, sizes)
        return sizes


def parse_groups(plain: Mapping[str, Any], catalogue: Catalogue | None) -> Iterator[ViewGroup]:
    """Parse the list of views of plain data. Raises RecipeError."""
    views = plain["views"]
    if not views:
        raise RecipeError(
            f"recipe.views: expected a whole number or a list such as {VIEWS_EXAMPLE}, got an "
            "empty list. Add a group, or take views out."
        )
    if "ops" in plain:
        raise RecipeError(
            f"recipe.ops: expected no ops beside a list of views, got {brief(plain['ops'])}. "
            "Give each group its own ops."
        )
    if plain.get("mix") is not None:
        raise RecipeError(
            f"recipe.mix: expected no mix beside a list of views, whose losses compare views of "
            f"one image, got {brief(plain['mix'])}. Take it out."
        )
    settings = {key: value for key, value in plain.items() if key != "views"}
    check_keys("recipe", settings, _setting_names(), "views")
    groups, first_view, places = list[ViewGroup](), 0, dict[str, int]()
    for number, group in enumerate(views):
        name, recipe = _parse_group(f"recipe.views[{number}]", group, settings, catalogue)
        groups.append(ViewGroup(name, recipe, first_view, places.get(name, 0)))
        first_view += recipe.views
        places[name] = places.get(name, 0) + recipe.views
    _check_sizes(groups, [_known_size(group.recipe) for group in groups])
    yield from groups


def _parse_group(
    path: str, group: Any, settings: Mapping[str, Any], catalogue: Catalogue | None
) -> tuple[str, Recipe]:
    """Return the name of a group and its recipe, which has the settings that the group lacks."""
    if not isinstance(group, Mapping):
        raise RecipeError(
            f'{path}: expected a mapping such as {{"name": "global", "count": 2, "ops": [...]}}, '
            f"got {brief(group)}. Write each group as a mapping."
        )
    for key in SHARED_KEYS:
        if key in group:
            raise RecipeError(
                f"{path}.{key}: expected {key} beside the list of views, since it holds for all "
                f"views of an image, got it in a group. Move it there."
            )
    own = [name for name in _setting_names() if name not in SHARED_KEYS]
    check_keys(path, group, [*_GROUP_KEYS, *own])
    name, count = group.get("name"), group.get("count", 1)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RecipeError(
            f"{path}.name: expected 1 to 64 letters, digits, _ and -, the first a letter, got "
            f'{brief(name)}. Name the group, for example "global".'
        )
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_VIEWS:
        raise RecipeError(
            f"{path}.count: expected a whole number of views in 1..{MAX_VIEWS}, got "
            f"{brief(count)}. Change the value, or take the group out."
        )
    own_data = {key: value for key, value in group.items() if key not in _GROUP_KEYS[:3]}
    if own_data.get("fill", "constant") != "constant":
        # The colour beside the list is for the groups whose fill takes one.
        settings = {key: value for key, value in settings.items() if key != "fill_value"}
    data = {**settings, "ops": None, **own_data}
    size = group.get("size")
    if size is not None:
        data["ops"] = _sized(data["ops"], _read_size(f"{path}.size", size))
    try:
        alone = parse_recipe(data, catalogue)
        _check_rows_per_view(alone)
        if size is not None:
            _check_size(alone, _read_size(f"{path}.size", size))
        return name, alone if count == 1 else parse_recipe({**data, "views": count}, catalogue)
    except RecipeError as error:
        raise RecipeError(_in_group(str(error), path, own_data)) from None


def _read_size(path: str, size: Any) -> list[int]:
    sides = [size, size] if isinstance(size, int) else size
    is_pair = isinstance(sides, list | tuple) and len(sides) == 2
    if not is_pair or not all(isinstance(one, int) and one >= 1 for one in sides) or size is True:
        raise RecipeError(
            f"{path}: expected a number of pixels or [height, width], got {brief(size)}. Change "
            "the value, or take it out."
        )
    return [int(side) for side in sides]


def _sized(ops: Any, size: list[int]) -> Any:
    """Give a group's size to its crops that say none."""
    if not isinstance(ops, list | tuple):
        return ops
    return [
        {**op, "size": size}
        if isinstance(op, Mapping) and op.get("op") in _SIZED and "size" not in op
        else op
        for op in ops
    ]


def _check_size(recipe: Recipe, size: list[int]) -> None:
    found = _known_size(recipe)
    if found != tuple(size):
        raise RecipeError(
            f"recipe.size: expected {_words(found)}, which the ops of the group decide, got "
            f"{size[1]}x{size[0]}. Take one of both out."
        )


def _check_rows_per_view(recipe: Recipe) -> None:
    for number, op in enumerate(recipe.ops):
        if op.num_views > 1:
            raise RecipeError(
                f"recipe.ops[{number}].op: expected an op that makes one row in a group of views, "
                f"got {name_of(op)}, which makes {op.num_views}. Use it in a recipe without groups."
            )


def _in_group(text: str, path: str, own: Mapping[str, Any]) -> str:
    """Let an error about a group's recipe name the value in the group."""
    key = re.match(r"recipe\.(\w+)", text)
    if key is None:
        return text
    if key[1] == "views":
        return f"{path}.count{text[key.end() :]}"
    is_own = key[1] in own or key[1] in ("ops", "size")
    return f"{path}{text[len('recipe') :]}" if is_own else text


def check_keys(path: str, plain: Mapping[Any, Any], known: list[str], *more: str) -> None:
    """Reject keys of plain data that are not known; `more` are known, too."""
    for key in plain:
        if key not in known:
            raise RecipeError(
                f"{path}.{str(key)[:40]}: expected one of the keys {', '.join([*known, *more])}, "
                f"got {brief(key)}." + (suggest(key, known) or " Take it out.")
            )


def _setting_names() -> list[str]:
    """Name the keys of a recipe beside its ops and views."""
    return [name for name in Recipe.__struct_fields__ if name not in ("ops", "views", "mix")]


def _known_size(recipe: Recipe) -> Size | None:
    extent = final_extent(recipe.ops)
    return (extent.height, extent.width) if extent.exact else None


def _check_sizes(
    groups: tuple[ViewGroup, ...] | list[ViewGroup], sizes: tuple[Size, ...] | list[Size | None]
) -> None:
    """Reject views of one name with two sizes, and more than a slot should hold."""
    first: dict[str, tuple[int, Size | None]] = {}
    for number, (group, size) in enumerate(zip(groups, sizes, strict=True)):
        other, expected = first.setdefault(group.name, (number, size))
        if size != expected:
            raise RecipeError(
                f"recipe.views[{number}].ops: expected rows of {_words(expected)} as those of "
                f"views[{other}], whose name is {group.name!r}, too, got {_words(size)}. Give the "
                "group another name, or the same size."
            )
    num_views = sum(group.recipe.views for group in groups)
    if num_views > MAX_VIEWS:
        raise RecipeError(
            f"recipe.views: expected at most {MAX_VIEWS} views of a sample in all groups, got "
            f"{num_views}. Ask for fewer."
        )
    area = sum(
        group.recipe.views * size[0] * size[1]
        for group, size in zip(groups, sizes, strict=True)
        if size is not None
    )
    if area > MAX_SAMPLE_AREA_PX:
        raise RecipeError(
            f"recipe.views: expected at most {MAX_SAMPLE_AREA_PX // 1_000_000} megapixels for all "
            f"views of a sample, got {area / 1e6:.1f} of {num_views}. Ask for fewer or smaller "
            "ones."
        )


def _words(size: Size | None) -> str:
    return "the size of the first image" if size is None else f"{size[1]}x{size[0]}"
