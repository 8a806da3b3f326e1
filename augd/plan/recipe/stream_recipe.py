"""A stream's recipe: one recipe for all rows, view groups with recipes of their own, phases.

A plain recipe makes one array of images. A recipe with a list under `views` makes several rows of
each image by other ops: each group has a name, a number of views and a recipe, which takes the
settings beside the list unless it has its own. Views of one name are one array of the batch.

A recipe with a list under `phases` is a schedule: each phase is a whole recipe, which holds from
its epoch on. What is drawn and made in an epoch depends on the recipe of its phase alone.

`parse_stream_recipe` reads plain data; every group then holds a complete `Recipe`, so that planner
and renderer know nothing of groups.

Invariants: phases have the same names of views, and begin at rising epochs, the first at 0. Groups
of one name have rows of one size. The views of a sample are numbered through all groups, so that no
two share a random word. Two spellings of one recipe expand to the same data. Nothing here draws a
number, reads a file or imports NumPy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, Final

import msgspec

from augd.errors import RecipeError
from augd.plan.ops.all_ops import OPS_BY_NAME
from augd.plan.ops.base import name_of
from augd.plan.recipe.checks import MAX_SAMPLE_AREA_PX, MAX_VIEWS, final_extent
from augd.plan.recipe.error_texts import suggest
from augd.plan.recipe.plain_ops import list_names
from augd.plan.recipe.recipe import (
    Recipe,
    expand,
    output_size,
    parse_recipe,
    plain_settings,
    preset_of,
)

if TYPE_CHECKING:
    from augd.plan.recipe.op_catalogue import Catalogue

# One decode serves all views of an image, and one device all colours of a batch.
SHARED_KEYS: Final = ("colour_on", "exif", "scaled_decode", "background")
_GROUP_KEYS: Final = ("name", "count", "ops")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
# A producer has a renderer for each, and OPENED names their arrays.
MAX_PHASES: Final = 32
_EPOCH_LAST: Final = 2**31 - 1
# Of a recipe's fields in OPENED, whose header has 64 KiB.
_FIELDS_BYTES_MAX: Final = 24_000
_SAME_KEYS: Final = ("colour_on", "exif", "background")
_EXAMPLE: Final = '[{"name": "global", "count": 2, "ops": [...]}, ...]'

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


@dataclass(frozen=True, slots=True)
class StreamRecipe:
    """What happens to the samples of a stream, epoch by epoch."""

    phases: tuple[Phase, ...]

    def number_at(self, epoch: int) -> int:
        """Return the number of an epoch's phase."""
        return sum(phase.from_epoch <= epoch for phase in self.phases) - 1

    def at(self, epoch: int) -> Phase:
        """Return the phase of an epoch."""
        return self.phases[self.number_at(epoch)]

    @property
    def recipes(self) -> Iterator[Recipe]:
        """Yield the recipe of each group of each phase."""
        return (group.recipe for phase in self.phases for group in phase.groups)

    def environment_of(
        self, catalogue: Catalogue, environment: Mapping[str, str]
    ) -> dict[str, str]:
        """Leave out of a producer's environment the plug-ins that no group uses."""
        used: dict[str, str] = {}
        for recipe in self.recipes:
            used |= catalogue.environment_of(recipe, environment)
        return {name: value for name, value in environment.items() if name in used}


def parse_stream_recipe(
    recipe: str | Mapping[str, Any], catalogue: Catalogue | None = None
) -> StreamRecipe:
    """Validate a preset's name or plain data, with or without view groups.

    Raises RecipeError as `parse_recipe`.
    """
    plain: Any = preset_of(recipe) if isinstance(recipe, str) else recipe
    if isinstance(plain, Mapping) and "phases" in plain:
        return StreamRecipe(tuple(_parse_phases(plain, catalogue)))
    return StreamRecipe((_parse_phase(plain, catalogue),))


def _parse_phases(plain: Mapping[str, Any], catalogue: Catalogue | None) -> Iterator[Phase]:
    given = plain["phases"]
    if not isinstance(given, list | tuple) or not given:
        raise RecipeError(
            'recipe.phases: expected a list such as [{"from_epoch": 0, "ops": [...]}, ...], got '
            f"{brief(given)}. Give each phase a whole recipe."
        )
    if len(given) > MAX_PHASES:
        raise RecipeError(
            f"recipe.phases: expected at most {MAX_PHASES} phases, got {len(given)}. Give fewer."
        )
    _check_keys("recipe", plain, ["phases"])
    phases = list[Phase]()
    for number, one in enumerate(given):
        path = f"recipe.phases[{number}]"
        if not isinstance(one, Mapping):
            raise RecipeError(
                f'{path}: expected a mapping such as {{"from_epoch": 0, "ops": [...]}}, got '
                f"{brief(one)}. Write each phase as a mapping."
            )
        from_epoch = _from_epoch(path, one.get("from_epoch"), phases)
        data = {key: value for key, value in one.items() if key != "from_epoch"}
        try:
            phase = _parse_phase(data, catalogue, from_epoch)
        except RecipeError as error:
            raise RecipeError(path + str(error).removeprefix("recipe")) from None
        if phases:
            _check_alike(path, phases[0], phase)
        phases.append(phase)
    size = _count_bytes(len("recipe"), _expand(phases))
    if size > _FIELDS_BYTES_MAX:
        raise RecipeError(
            f"recipe.phases: expected recipes that take at most {_FIELDS_BYTES_MAX:,} bytes with "
            f"every default, got {size:,}. Give fewer phases or fewer ops."
        )
    yield from phases


def _count_bytes(name: int, value: Any) -> int:
    """Count the bytes of the fields of plain data, whose own name has so many."""
    if isinstance(value, Mapping):
        return sum(_count_bytes(name + 1 + len(key), item) for key, item in value.items())
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return sum(_count_bytes(name + len("[00]"), item) for item in value)
    return name + len(json.dumps(value))


def _from_epoch(path: str, value: Any, earlier: list[Phase]) -> int:
    """Check where a phase begins: the first at epoch 0, each later than the one before."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not earlier:
        if not is_whole or value != 0:
            raise RecipeError(
                f"{path}.from_epoch: expected 0 for the first phase, since an epoch must have a "
                f"recipe, got {brief(value)}. Let it begin at 0."
            )
        return 0
    last = earlier[-1].from_epoch
    if not is_whole or not last < value <= _EPOCH_LAST:
        raise RecipeError(
            f"{path}.from_epoch: expected a whole number above {last}, where the phase before it "
            f"begins, and at most {_EPOCH_LAST}, got {brief(value)}. Give the phases in the order "
            "of their epochs."
        )
    return int(value)


def _check_alike(path: str, first: Phase, phase: Phase) -> None:
    """Reject a phase whose batches have other arrays, or whose images are read otherwise."""
    names, expected = (list(dict.fromkeys(g.name for g in one.groups)) for one in (phase, first))
    if names != expected:
        raise RecipeError(
            f"{path}.views: expected {_names(expected)} as in phases[0], since a program reads the "
            f"same arrays in all epochs, got {_names(names)}. Give all phases the same names."
        )
    for key in _SAME_KEYS:
        here, there = getattr(phase.shared, key), getattr(first.shared, key)
        if here != there:
            raise RecipeError(
                f"{path}.{key}: expected {there!r} as in phases[0], which holds for a whole "
                f"stream, got {here!r}. Give all phases the same."
            )


def _names(names: list[str]) -> str:
    return "the views " + ", ".join(map(repr, names)) if any(names) else "no list of views"


def _parse_phase(plain: Any, catalogue: Catalogue | None, from_epoch: int = 0) -> Phase:
    views = plain.get("views", 1) if isinstance(plain, Mapping) else 1
    if isinstance(views, list | tuple):
        return Phase(tuple(_parse_groups(plain, catalogue)), from_epoch)
    if isinstance(views, bool) or not isinstance(views, int):
        raise RecipeError(
            f"recipe.views: expected a whole number or a list such as {_EXAMPLE}, got "
            f"{brief(views)}. Give one of both."
        )
    return Phase((ViewGroup("", parse_recipe(plain, catalogue)),), from_epoch)


def as_stream_recipe(recipe: Recipe) -> StreamRecipe:
    """Return a plain recipe as that of a stream."""
    return StreamRecipe((Phase((ViewGroup("", recipe),)),))


def _parse_groups(plain: Mapping[str, Any], catalogue: Catalogue | None) -> Iterator[ViewGroup]:
    views = plain["views"]
    if not views:
        raise RecipeError(
            f"recipe.views: expected a whole number or a list such as {_EXAMPLE}, got an empty "
            "list. Add a group, or take views out."
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
    _check_keys("recipe", settings, _setting_names(), "views")
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
    _check_keys(path, group, [*_GROUP_KEYS, *own])
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
    own_data = {key: value for key, value in group.items() if key not in ("name", "count")}
    data = {**settings, "ops": None, **own_data}
    try:
        alone = parse_recipe(data, catalogue)
        _check_rows_per_view(alone)
        return name, alone if count == 1 else parse_recipe({**data, "views": count}, catalogue)
    except RecipeError as error:
        raise RecipeError(_in_group(str(error), path, own_data)) from None


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
    return f"{path}{text[len('recipe') :]}" if key[1] in own or key[1] == "ops" else text


def _check_keys(path: str, plain: Mapping[Any, Any], known: list[str], *more: str) -> None:
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


# plain data


def expand_stream(recipe: StreamRecipe) -> dict[str, Any]:
    """Write a stream's recipe as plain data with every default of its ops.

    Equal recipes give equal data, which `parse_stream_recipe` reads back. Beside a list of views
    stand the settings of its first group; the others have what differs. A list of one phase is its
    recipe.
    """
    return _expand(recipe.phases)


def _expand(phases: Sequence[Phase]) -> dict[str, Any]:
    if len(phases) == 1:
        return _expand_phase(phases[0])
    expanded = [{"from_epoch": phase.from_epoch, **_expand_phase(phase)} for phase in phases]
    return {"phases": expanded}


def plain_at(plain: Mapping[str, Any], epoch: int) -> Mapping[str, Any]:
    """Return the plain data of the phase of an epoch, of a recipe that was found valid."""
    phases: Sequence[Mapping[str, Any]] = plain.get("phases") or (plain,)
    return next(one for one in reversed(phases) if one.get("from_epoch", 0) <= epoch)


def _expand_phase(phase: Phase) -> dict[str, Any]:
    first = expand(phase.shared)
    if not phase.is_grouped:
        return first
    beside = {key: value for key, value in first.items() if key not in ("ops", "views")}
    settings, views = plain_settings(phase.shared), []
    for group in phase.groups:
        here = plain_settings(group.recipe)
        own = {key: value for key, value in here.items() if value != settings[key]}
        ops = expand(group.recipe)["ops"]
        views.append({"name": group.name, "count": group.recipe.views, **own, "ops": ops})
    return {**beside, "views": views}


def plain_recipe(recipe: str | Mapping[str, Any]) -> dict[str, Any]:
    """Write a recipe as a client sends it: expanded, unless it names ops that are not built in.

    Such a recipe is sent as it is: its daemon knows whether they are ops of a plug-in, and
    validates it. Raises RecipeError.
    """
    if all(name in OPS_BY_NAME for name in _op_names(recipe)):
        return expand_stream(parse_stream_recipe(recipe))
    try:
        plain: dict[str, Any] = msgspec.to_builtins(recipe, str_keys=True)
    except TypeError as error:
        raise RecipeError(f"recipe: expected plain data, got something else: {error}.") from None
    return plain


def _op_names(plain: Any) -> Iterator[str]:
    """Yield the names of the ops of plain data, those of its views and phases included."""
    if isinstance(plain, Mapping):
        yield from list_names(plain.get("ops"))
        for key in ("views", "phases"):
            items = plain.get(key)
            for item in items if isinstance(items, list | tuple) else ():
                yield from _op_names(item)
