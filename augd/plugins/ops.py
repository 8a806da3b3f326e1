"""Imports plug-in modules in producers, and surveys them for the daemon, which never imports them.

`load` runs in every producer before it confines itself, and in the commands that make rows in their
own process (`augd preview`, `augd explain`). It also runs in a short-lived process
(`augd.plugins.ops FD PID MODULE...`), whose survey tells the daemon which ops exist. A module that
cannot be used is an error of the daemon's start, with its traceback.

Invariants: a plug-in is imported by the name that the operator gave, never by a client's. This
module imports neither NumPy nor a plug-in until `load` is called.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import msgspec

from augd.dataset.index_arrays import IndexArrays
from augd.errors import PluginFailed
from augd.plan.ops.plugin import OwnOpError, Plugin, is_geometric
from augd.plan.recipe.op_catalogue import Catalogue
from augd.plan.recipe.op_schema import Survey, catalogue_of, survey_of
from augd.plugins.survey_process import ask, begin
from augd.process import interpreter

_PATIENCE_S = 60.0  # to import one module
_DIGEST_BYTES = 16
_FRAMES_SHOWN = 4  # last lines of a traceback: those of the plug-in


class _Answer(msgspec.Struct, omit_defaults=True):
    """What the surveying process writes."""

    survey: Survey = Survey()
    error: str = ""


def load(modules: Sequence[str], begin: Callable[[str], object] = str) -> Catalogue:
    """Import these modules and collect their ops.

    Args:
        modules: their names.
        begin: called with what is done next.

    Raises:
        PluginFailed: a module cannot be imported, has no op, or has an invalid op.
    """
    own: list[tuple[str, type[Plugin]]] = []
    digests: dict[str, str] = {}
    for name in modules:
        begin(f"import {name}")
        try:
            module = interpreter.import_named(name)
        except Exception as error:
            if interpreter.is_absence_of(name, error):
                raise PluginFailed(
                    f"plug-in {name} cannot be imported: {error}. {interpreter.HOW_NAMED}"
                ) from None
            raise PluginFailed(
                f"plug-in {name} cannot be imported: {tail_of(error)}\n{interpreter.HOW_NAMED}"
            ) from error
        found = list(_ops_of(module))
        if not found:
            raise PluginFailed(
                f"plug-in {name} ({module.__file__}): expected a class derived from augd.Plugin, "
                "got none. Write one, or leave the plug-in out"
            )
        own += [(name, op_class) for op_class in found]
        digests[name] = digest_of(module)
    try:
        catalogue = Catalogue(own, digests)
        survey_of(catalogue)
    except ValueError as error:
        raise PluginFailed(f"plug-ins {', '.join(modules)}: {error}") from error
    return catalogue


def survey(modules: Sequence[str]) -> Catalogue:
    """Import these modules in another process, and return what a daemon needs of their ops.

    Raises:
        PluginFailed: as `load`, or importing one takes longer than a minute.
    """
    if not modules:
        return catalogue_of(Survey())
    text = ask(
        *("augd.plugins.ops", *modules),
        subject=f"plug-ins {', '.join(modules)}",
        patience_s=_PATIENCE_S,
        advice="A plug-in must do nothing but define its ops",
    )
    said = msgspec.json.decode(text, type=_Answer)
    if said.error:
        raise PluginFailed(said.error)
    return catalogue_of(said.survey)


def tail_of(error: BaseException) -> str:
    """Describe an exception with the last lines of its traceback."""
    lines = traceback.format_exception(error, limit=-_FRAMES_SHOWN, chain=False)
    return "".join(lines).strip()


def tell(failure: PluginFailed) -> str:
    """Describe what failed, and what the plug-in raised, with its traceback."""
    cause = failure.__cause__
    return str(failure) if cause is None else f"{failure}\n{tail_of(cause)}"


def digest_of(module: ModuleType) -> str:
    """Return the digest of a module's source: its file, or all of a package's."""
    path = Path(module.__file__ or "")
    whole = sorted(path.parent.rglob("*.py")) if hasattr(module, "__path__") else [path]
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for source in whole:
        content = source.read_bytes()
        digest.update(f"{source.relative_to(path.parent)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _ops_of(module: ModuleType) -> Iterator[type[Plugin]]:
    """Find the ops that a module or package defines, in the order of their definition.

    Classes whose name begins with an underscore are bases of others.
    """
    for name, found in vars(module).items():
        if (
            isinstance(found, type)
            and issubclass(found, Plugin)
            and f"{found.__module__}.".startswith(f"{module.__name__}.")
            and not name.startswith("_")
        ):
            try:
                is_geometric(found)
            except ValueError as error:
                raise PluginFailed(
                    f"plug-in {module.__name__} ({module.__file__}): {error}"
                ) from None
            yield found


def name_failure(error: OwnOpError, index: IndexArrays) -> PluginFailed:
    """Return an error that names the op and the file. The plug-in's exception is its cause."""
    path = index.path(error.sample)
    failure = PluginFailed(
        f"op {error.op} failed at sample {error.sample} ({path}), epoch {error.epoch}: {error.what}"
    )
    failure.__cause__ = error.__cause__
    return failure


def _main(fd: str, parent_pid: str, *modules: str) -> None:
    report = begin(fd, parent_pid)
    try:
        answer = _Answer(survey=survey_of(load(modules, report.step)))
    except PluginFailed as error:
        answer = _Answer(error=str(error))
    report.answer(msgspec.json.encode(answer))


if __name__ == "__main__":
    _main(*sys.argv[1:])
