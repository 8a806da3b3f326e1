"""How a Python process is started, and what it may import: one place for all helpers.

`python -m` and `python -c` put the working directory first on `sys.path`, and that may be a data
set, a stranger's: its cv2.py would be run, and before anything is confined. So no helper is started
by them. It runs this file, by its path and with `-P`, which takes the package augd from where this
file lies and goes on as the module that it is told. Of PYTHONPATH only absolute places count.

What an operator names (`--plugin`, own sources, `--step`) is imported by `import_named`, which is
the only thing that looks into the working directory, for that name alone.

Invariants: nothing here puts a place on `sys.path`. Runs as a program before augd is imported, so
it imports the standard library alone, and nothing slow.
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
    """Start an interpreter that runs this module of augd with these words.

    Args:
        module: as in `import MODULE`; a package stands for its `__main__`.
        words: its arguments.
        env: its environment; None for this process's own.
        options: what else `subprocess.Popen` takes; it has no standard input by default.
    """
    import subprocess

    given = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.Popen(command(module, *words), env=environment(env), **given)


def run(
    module: str, *words: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Do the same and wait for its end, as `subprocess.run` does."""
    import subprocess

    given = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.run(command(module, *words), env=environment(env), **given)


def command(module: str, *words: str) -> list[str]:
    """Write the command that runs a module of augd; `environment` belongs to it.

    What this interpreter was told to ignore (`-I`, `-E`, `-s`) that one ignores, too.
    """
    flags = [flag for flag, name in _IGNORING.items() if getattr(sys.flags, name)]
    return [sys.executable, "-P", *flags, os.path.abspath(__file__), module, *words]


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment for such a command, without places that depend on where it starts."""
    kept = dict(os.environ if env is None else env)
    places = [place for place in kept.pop(_PATHS, "").split(os.pathsep) if os.path.isabs(place)]
    if places:
        kept[_PATHS] = os.pathsep.join(places)
    kept[_SAFE] = "1"  # for whatever it starts in turn
    return kept


def leave_working_directory(*, is_module: bool = False) -> None:
    """Take the working directory off `sys.path`, where the start of this process put it.

    For commands; what was imported before stays. `is_module` says that `python -m` started it.
    """
    given = os.environ.get(_PATHS)
    relative = [place for place in (given or "").split(os.pathsep) if not os.path.isabs(place)]
    unwanted = {"", *(map(os.path.abspath, relative) if given else ())}
    if is_module and not sys.flags.safe_path and sys.path and sys.path[0] == _here():
        del sys.path[0]
    sys.path[:] = [place for place in sys.path if place not in unwanted]


def is_beginning(module: str) -> bool:
    """Say whether this process is `python -m MODULE`, on its way to that module."""
    words = sys.orig_argv
    return sys.argv[:1] == ["-m"] and ("-m", module) in pairwise(words)


def import_named(name: str) -> ModuleType:
    """Import a module that the operator named; what else lies beside it stays unseen.

    It is looked for among the installed packages and in PYTHONPATH, and last in the working
    directory: what is installed is never hidden by what lies there.
    """
    _named.add(name.partition(".")[0])
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
    return import_module(name)


def is_absence_of(name: str, error: Exception) -> bool:
    """Say whether a module cannot be imported because it isn't there itself, or its package."""
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
    """Go on as a module of the augd that this file belongs to, whatever `sys.path` says."""
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
