"""The catalogue: which ops a daemon and its producers know, the built-in ones and own ones.

A producer makes it from the classes of its plug-ins. The daemon, which imports none of them, makes
it from a survey (`op_schema`) of the same modules. Both parse recipes by it, and so accept and
reject the same.

Invariants: pure; nothing here imports a plug-in or NumPy, nor anything that only plug-ins need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Union, get_args

import msgspec

from augd.plan.ops.all_ops import OPS_BY_NAME, AllOf, OneOf, SingleOp
from augd.plan.ops.base import BaseOp, name_of, walk_ops
from augd.plan.recipe.recipe import Recipe

if TYPE_CHECKING:
    from augd.plan.ops.plugin import Plugin

_PREFIX = "plugin."  # of the environment's entries that are digests of plug-ins


class Catalogue:
    """Ops by name, and the class of the recipes that are made of them."""

    __slots__ = ("by_name", "digests", "environment", "module_of", "recipe_class")

    by_name: Mapping[str, type[BaseOp]]
    recipe_class: type[Recipe]
    module_of: Mapping[str, str]
    """The module of each own op."""
    digests: Mapping[str, str]
    """Of each plug-in's source, by module."""
    environment: Mapping[str, str]
    """The same, by `plugin.MODULE`."""

    def __init__(self, own: Iterable[tuple[str, type[Plugin]]], digests: Mapping[str, str]) -> None:
        """Take own ops with their modules, and each module's digest.

        Raises:
            ValueError: two ops have one name.
        """
        by_name, module_of = dict(OPS_BY_NAME), dict[str, str]()
        for module, op_class in own:
            name = name_of(op_class)
            if name in by_name:
                owner = module_of.get(name)
                raise ValueError(
                    f"{op_class.__name__} of {module}: expected a name of its own, got {name!r}, "
                    f"which is {'a built-in op' if owner is None else f'in {owner}, too'}. "
                    "Rename the class."
                )
            by_name[name] = op_class
            module_of[name] = module
        self.by_name, self.module_of = by_name, module_of
        self.digests = digests
        self.environment = {_PREFIX + module: digest for module, digest in digests.items()}
        self.recipe_class = Recipe
        if self.module_of:
            self.recipe_class = self._recipe_class()

    def _recipe_class(self) -> type[Recipe]:
        """Make the class of recipes whose ops may be own ones, too."""
        own_classes = (self.by_name[name] for name in self.module_of)
        single: Any = Union[(*get_args(SingleOp), *own_classes)]
        ops: Any = single | OneOf[single] | AllOf[single]
        made: Any = msgspec.defstruct(
            "Recipe",
            [("ops", tuple[ops, ...])],
            bases=(Recipe,),
            frozen=True,
            kw_only=True,
            forbid_unknown_fields=True,
        )
        return made  # type: ignore[no-any-return]

    def environment_of(self, recipe: Recipe, environment: Mapping[str, str]) -> dict[str, str]:
        """Leave out of a producer's environment the plug-ins that a recipe doesn't use."""
        modules = {self.module_of.get(name_of(op)) for _, op in walk_ops(recipe.ops)}
        used = {_PREFIX + module for module in modules if module is not None}
        return {
            name: value
            for name, value in environment.items()
            if name in used or not name.startswith(_PREFIX)
        }

    def expect(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return what the first producer must have reported: its libraries, and these plug-ins."""
        libraries = {k: v for k, v in environment.items() if not k.startswith(_PREFIX)}
        return {**libraries, **self.environment}


BUILT_IN = Catalogue((), {})
