"""Starts Python processes of augd, and limits what they may import.

`python -m` and `python -c` put the working directory first on `sys.path`. The working directory may
be an untrusted dataset: its cv2.py would run before anything is confined. So no child process is
started that way. The interpreter runs this file, by its path and with `-P`. It takes the package
augd from where this file lies, and continues as the given module. Of PYTHONPATH only absolute
places count.

`import_named` imports what an operator names (`--plugin`, own sources, `--step`). Only it searches
the working directory, and only for that name.

Invariants: nothing here adds a place to `sys.path`. Runs as a program before augd is imported, so
it imports only the standard library, and nothing slow.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from types import ModuleType

HOW_NAMED = (
    "Give a module's name as in `import NAME`; it is looked for among the installed packages, in "
    "PYTHONPATH, and last in the working directory. What it imports beside itself must lie in its "
    "package, or in a folder that PYTHONPATH names in full"
)
"""For errors about what an operator named."""

_IGNORING = {"-E": "ignore_environment", "-s": "no_user_site"}
_PATHS = "PYTHONPATH"
_SAFE = "PYTHONSAFEPATH"


def start(
    module: str, *words: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start an interpreter that runs this module of augd with these arguments.

    Args:
        module: as in `import MODULE`; a package stands for its `__main__`.
        words: its arguments.
        env: its environment; None for this process's own.
        options: further options of `subprocess.Popen`; there is no standard input by default.
    """
    import subprocess

    given = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.Popen(command(module, *words), env=environment(env), **given)


def run(
    module: str, *words: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a module of augd and wait for its end, as `subprocess.run` does."""
    import subprocess

    given = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.run(command(module, *words), env=environment(env), **given)


def command(module: str, *words: str) -> list[str]:
    """Return the command that runs a module of augd. It needs the environment of `environment`.

    The child ignores what this interpreter ignores (`-I`, `-E`, `-s`).
    """
    flags = [flag for flag, name in _IGNORING.items() if getattr(sys.flags, name)]
    return [sys.executable, "-P", *flags, os.path.abspath(__file__), module, *words]


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for such a command, without places that depend on where it starts."""
    kept = dict(os.environ if env is None else env)
    places = [place for place in kept.pop(_PATHS, "").split(os.pathsep) if os.path.isabs(place)]
    if places:
        kept[_PATHS] = os.pathsep.join(places)
    kept[_SAFE] = "1"  # for the processes that it starts in turn
    return kept


def leave_working_directory(*, is_module: bool = False) -> None:
    """Remove the working directory from `sys.path`, where the start of this process put it.

    For commands. Earlier imports stay. `is_module`: `python -m` started the process.
    """
    given = os.environ.get(_PATHS)
    relative = [place for place in (given or "").split(os.pathsep) if not os.path.isabs(place)]
    unwanted = {"", *(map(os.path.abspath, relative) if given else ())}
    if is_module and not sys.flags.safe_path and sys.path and sys.path[0] == _here():
        del sys.path[0]
    sys.path[:] = [place for place in sys.path if place not in unwanted]


def is_beginning(module: str) -> bool:
    """Return whether this process is `python -m MODULE`, on its way to that module."""
    words = sys.orig_argv
    return sys.argv[:1] == ["-m"] and ("-m", module) in pairwise(words)


def import_named(name: str) -> ModuleType:
    """Import a module that the operator named. Other files beside it stay invisible.

    It is searched for among the installed packages and in PYTHONPATH, and last in the working
    directory: a file there never hides an installed module.
    """
    _named.add(name.partition(".")[0])
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
    return import_module(name)


def is_absence_of(name: str, error: Exception) -> bool:
    """Return whether an import failed because the module itself, or its package, is missing."""
    return isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")


class _Finder:
    """Finds named modules in the working directory, and no others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        here = _here()
        if path is not None or name not in _named or not here:
            return None
        return PathFinder.find_spec(name, [here])


_named: set[str] = set()
_finder = _Finder()


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _become(module: str, words: list[str]) -> None:
    """Continue as a module of the augd that this file belongs to, whatever `sys.path` holds."""
    from importlib.util import module_from_spec, spec_from_file_location
    from runpy import run_module

    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = spec_from_file_location(
        "augd", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["augd"] = package = module_from_spec(spec)
    spec.loader.exec_module(package)
    sys.argv[1:] = words
    try:
        run_module(module, run_name="__main__", alter_sys=True)
    except OSError as error:
        from augd.process.command import say
        from augd.process.system_errors import as_refusal

        if (refused := as_refusal(error)) is None:
            raise
        say(f"augd: error: the process {module} cannot go on: {refused}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    _become(sys.argv[1], sys.argv[2:])
