"""Sockets in the file system that are this user's alone: how they are made, known and removed.

Stands under whatever listens at a path: the daemon's ROUTERs and its attach socket.

Invariants: a socket is 0600 from the moment at which it exists, whatever the umask is; nothing is
removed but a socket of this user; links are never followed.
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
    """Listen at a path for this user alone; nothing may be there. Accepting never blocks.

    Whoever closes it leaves the file. One thread at a time: the umask is the process's.

    Raises:
        OptionError: something is there, or no socket can be made there.
    """
    listener = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)  # chmod afterwards would leave a moment for others to connect in
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
        OptionError: something else is there, which nobody here may remove.
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
    """Remove a socket of this user; nothing happens where nothing is.

    Raises:
        OptionError: something else is there.
    """
    if find_own(path):
        path.unlink(missing_ok=True)
