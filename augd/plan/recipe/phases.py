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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, Final

import msgspec

from augd.errors import RecipeError
from augd.plan.ops.all_ops import OPS_BY_NAME
from augd.plan.recipe.plain_ops import list_names
from augd.plan.recipe.recipe import (
    Recipe,
    expand,
    parse_recipe,
    plain_settings,
    preset_of,
)
from augd.plan.recipe.view_groups import (
    SHARED_KEYS,
    VIEWS_EXAMPLE,
    Phase,
    Size,
    ViewGroup,
    check_keys,
    parse_groups,
)

if TYPE_CHECKING:
    from augd.plan.recipe.op_catalogue import Catalogue

__all__ = [
    "SHARED_KEYS",
    "Phase",
    "Size",
    "StreamRecipe",
    "ViewGroup",
    "as_stream_recipe",
    "expand_stream",
    "parse_stream_recipe",
    "plain_at",
    "plain_recipe",
]

# A producer has a renderer for each, and OPENED names their arrays.
MAX_PHASES: Final = 32
_EPOCH_LAST: Final = 2**31 - 2
# Of a recipe's fields in OPENED, whose header has 64 KiB.
_FIELDS_BYTES_MAX: Final = 24_000
_SAME_KEYS: Final = ("colour_on", "exif", "background")


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
    check_keys("recipe", plain, ["phases"])
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
        return Phase(tuple(parse_groups(plain, catalogue)), from_epoch)
    if isinstance(views, bool) or not isinstance(views, int):
        raise RecipeError(
            f"recipe.views: expected a whole number or a list such as {VIEWS_EXAMPLE}, got "
            f"{brief(views)}. Give one of both."
        )
    return Phase((ViewGroup("", parse_recipe(plain, catalogue)),), from_epoch)


def as_stream_recipe(recipe: Recipe) -> StreamRecipe:
    """Return a plain recipe as that of a stream."""
    return StreamRecipe((Phase((ViewGroup("", recipe),)),))


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
