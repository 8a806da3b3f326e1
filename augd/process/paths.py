"""Paths as a process finds them: a working directory, a home, or none; times of files."""

from __future__ import annotations

import os
from typing import Final

from augd.errors import OptionError

NO_HOME: Final = os.devnull
"""Stands for the home of a user who has none: nothing can be made below it."""

NO_WORKING_DIRECTORY: Final = (
    "the working directory was removed: go to another one, or give the whole path"
)
_TIME_MAX_NS: Final = (1 << 63) - 1


def has_working_directory() -> bool:
    """Return whether this process's working directory is still there."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def absolute(path: str) -> str:
    """Make a path absolute.

    Raises:
        OptionError: it is relative, and the working directory was removed.
    """
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise OptionError(f"{path!r} is a relative path, and {NO_WORKING_DIRECTORY}") from None


def time_of(found: os.stat_result) -> int:
    """Return a file's modification time in nanoseconds, within 64 bits: until the year 2262.

    Later times all count as the last one.
    """
    return max(-_TIME_MAX_NS - 1, min(found.st_mtime_ns, _TIME_MAX_NS))


def user_folder(variable: str, *below_home: str) -> str:
    """Return the user's folder for a purpose: the value of a variable, or a folder below the home.

    Without a home, or if it does not exist (`/nonexistent` of system users), it lies below
    `NO_HOME`, where nothing can be created.
    """
    named = os.environ.get(variable)
    if named:
        return os.path.expanduser(named)
    home = os.path.expanduser("~")
    return os.path.join(
        home if os.path.isabs(home) and os.path.isdir(home) else NO_HOME, *below_home
    )
