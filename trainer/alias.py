"""`import trainer` gives the modules of `augd.torch`, so that no class exists twice.

Loaded if the name `trainer` leads to this folder. The package of that name becomes `augd.torch`
itself, and each of its modules the module of `augd.torch` with the same file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

from augd.errors import install_extra
from augd.process.interpreter import is_beginning, leave_working_directory

NAME: Final = "trainer"
_MAIN: Final = f"{NAME}.__main__"  # a program, which `python -m` finds as any other


def become_torch() -> None:
    """Give the name `trainer` to `augd.torch`, and the names of its modules to those of that."""
    if is_beginning(NAME):  # imports this package before its program can say a word
        leave_working_directory(is_module=True)
    import augd.torch

    if not any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AliasFinder())
    sys.modules[NAME] = augd.torch


def explain_missing_torch() -> ModuleNotFoundError:
    """Make the error of an import without torch: what to install, or what to use instead."""
    return ModuleNotFoundError(
        f"augd.torch needs torch, which is not installed here: {install_extra('trainer')}. "
        "augd.connect gives the same batches as NumPy arrays, without it.",
        name="torch",
    )


class _AliasFinder:
    """Finds `trainer.X` as `augd.torch.X`, while `trainer` is `augd.torch`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{NAME}.") or name == _MAIN:
            return None
        if sys.modules.get(NAME) is not sys.modules.get("augd.torch"):
            return None
        return ModuleSpec(name, _Loader())


class _Loader(Loader):
    """Returns the module that is loaded under its other name, unchanged."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(f"augd.torch{spec.name.removeprefix(NAME)}")
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the alias's there
