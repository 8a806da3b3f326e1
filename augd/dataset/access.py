"""What a dataset may reach beyond its own folder: links, and a manifest's root.

Set once by the operator, on a command line or in `augd.serve`. It is kept in this process's
environment, so that all child processes share it. The index records the access that it was made
with.

Invariants: unless the operator allows it, nothing outside a dataset's root is read; every folder is
named by its real path; opens no file. Imports no NumPy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import msgspec

from augd.dataset.scan_result import shown
from augd.errors import OptionError
from augd.pixels.headers.size_limits import VARIABLE as PIXELS_VARIABLE

LINKS_VARIABLE: Final = "AUGD_LINKS_TO"
ROOT_VARIABLE: Final = "AUGD_ROOT"
_ANYWHERE: Final = "/"


class Access(msgspec.Struct, frozen=True):
    """Folders that links may lead to, by their real paths, and the folder that manifests' paths
    start at.
    """

    links_to: tuple[bytes, ...] = ()
    root: bytes | None = None


def read_access() -> Access:
    """Read the access of this process.

    Raises:
        OptionError: a variable of the environment names something other than a folder.
    """
    links = os.environ.get(LINKS_VARIABLE, "")
    root = os.environ.get(ROOT_VARIABLE, "")
    return Access(
        tuple(_folder(LINKS_VARIABLE, one) for one in links.split(os.pathsep) if one),
        _folder(ROOT_VARIABLE, root) if root else None,
    )


def give_access(
    links_to: Sequence[str] = (), *, follow_links: bool = False, root: str | None = None
) -> None:
    """Allow this process, and its children, to read beyond a dataset's folder.

    Raises:
        OptionError: a path is no folder, or cannot be passed on.
    """
    if follow_links:
        links_to = [*links_to, _ANYWHERE]
    if links_to:
        folders = [os.fsdecode(_folder("--links-to", one)) for one in links_to]
        for folder in folders:
            if os.pathsep in folder:
                raise OptionError(
                    f"--links-to: expected a path without {os.pathsep!r}, got {folder!r}; name a "
                    f"folder above it"
                )
        os.environ[LINKS_VARIABLE] = os.pathsep.join(folders)
    if root is not None:
        os.environ[ROOT_VARIABLE] = os.fsdecode(_folder("--root", root))


def opening_words() -> list[str]:
    """Return options of a command line that give another host this process's access and size
    limit."""
    links = os.environ.get(LINKS_VARIABLE, "").split(os.pathsep)
    words = [f"--links-to={one}" for one in links if one]
    for option, variable in (("--root", ROOT_VARIABLE), ("--max-pixels", PIXELS_VARIABLE)):
        if said := os.environ.get(variable):
            words.append(f"{option}={said}")
    return words


def is_below(real: bytes, folder: bytes) -> bool:
    """Return whether a real path is a folder, or lies below it."""
    return (real + b"/").startswith(folder.rstrip(b"/") + b"/")


def _folder(name: str, path: str) -> bytes:
    real = os.path.realpath(os.fsencode(path))
    if not os.path.isdir(real):
        given = shown(os.fsencode(path))
        raise OptionError(
            f"{name}: expected a folder, got {given!r}, which is none; check the path"
        )
    return real
