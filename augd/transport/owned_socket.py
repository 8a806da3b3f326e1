"""Sockets in the file system that belong to this user alone: made, recognised and removed.

Used by the daemon, for its ROUTERs and its attach socket.

Invariants: a socket has mode 0600 from the moment it exists, whatever the umask; only sockets of
this user are removed; links are never followed.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from augd.errors import OptionError

_BACKLOG = 128
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISSOCK, "a socket"),
)


def listen(path: Path, kind: socket.SocketKind) -> socket.socket:
    """Listen at a path for this user alone; the path must not exist. Accepting never blocks.

    Closing leaves the file. For one thread at a time: the umask belongs to the process.

    Raises:
        OptionError: the path exists, or no socket can be made there.
    """
    listener = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)  # with chmod afterwards, others could connect in between
    try:
        listener.bind(os.fsencode(path))
    except OSError as error:
        listener.close()
        raise OptionError(
            f"{path}: no socket can be made there: {error.strerror}. Choose another address with "
            "--listen ipc://PATH, in a directory of your own"
        ) from None
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def find_own(path: Path) -> bool:
    """Say whether a socket of this user lies at a path; False where nothing does.

    Raises:
        OptionError: something else is there, which must not be removed.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid():
        return True
    name = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "a device or pipe")
    raise OptionError(
        f"{path} exists: {name} of user {found.st_uid}, expected nothing or a socket that an "
        f"earlier daemon of user {os.geteuid()} left. It is not removed: choose another address "
        "with --listen ipc://PATH"
    )


def remove_own(path: Path) -> None:
    """Remove a socket of this user, if there is one.

    Raises:
        OptionError: something else is there.
    """
    if find_own(path):
        path.unlink(missing_ok=True)
