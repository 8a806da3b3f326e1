"""The clients whose keys a daemon knows, read again whenever their files change.

Runs in the daemon. A connection is bound to a name *and* a key, so a client with a new key is
accepted by that key alone. A damaged file excludes its own client, and no other.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from zmq.utils import z85

from augd.errors import OptionError
from augd.protocol.permissions import Rights
from augd.transport.auth import keys
from augd.transport.auth.key_files import check_folder

_log = logging.getLogger("augd")


class KnownClients:
    """The clients that a folder of keys names, as last read."""

    def __init__(self, folder: Path) -> None:
        """Read the folder, which no other user may write to."""
        self._folder = folder
        self._marks: dict[str, tuple[int, ...]] = {}
        self._known: dict[str, keys.KnownClient] = {}
        self.users: dict[bytes, str] = {}
        self._rights: dict[str, Rights] = {}
        self.reload_changed()

    def rights_of(self, user: str) -> Rights | None:
        """Return the rights of a connection's owner now; None when it has none."""
        return self._rights.get(user)

    def may_produce(self, user: str) -> bool:
        """Say whether producers may join now with the key of a connection."""
        rights = self._rights.get(user)
        return rights is not None and rights.may_produce

    def reload_changed(self) -> list[str]:
        """Read changed files; return the names of clients whose key or rights changed."""
        marks = self._read_marks()
        touched = [name for name in marks | self._marks if marks.get(name) != self._marks.get(name)]
        before = self._rights
        for name in sorted(touched):
            self._known.pop(name, None)
            if name in marks:
                self._read(name)
        self._marks = marks
        if touched:
            self._index()
        changed = [user for user, rights in before.items() if self._rights.get(user) != rights]
        return [user.partition("/")[0] for user in changed]

    def _read(self, name: str) -> None:
        found = keys.read_client(keys.client_path(self._folder, name))
        if isinstance(found, keys.KnownClient):
            self._known[name] = found
        else:
            _log.error("client %s is refused: %s", name, found)

    def _read_marks(self) -> dict[str, tuple[int, ...]]:
        """Return a mark of each file; none when the folder can't be trusted."""
        below = keys.clients_folder(self._folder)
        try:
            check_folder(below)
            marks = {name: _mark(path) for name, path in keys.client_files(self._folder)}
            return {name: mark for name, mark in marks.items() if mark}
        except (OSError, OptionError) as error:
            if self._marks:
                _log.error("all clients are refused: %s", error)
            return {}

    def _index(self) -> None:
        """Name each user by name and key: another key of the same name is another user."""
        self.users, self._rights = {}, {}
        for name, known in sorted(self._known.items()):
            raw = z85.decode(known.public)
            if raw in self.users:
                _log.error("client %s is refused: %s has the same key", name, self.users[raw])
                continue
            user = f"{name}/{keys.fingerprint(known.public)}"
            self.users[raw] = user
            self._rights[user] = known.rights

    def __len__(self) -> int:
        return len(self.users)


def _mark(path: Path) -> tuple[int, ...]:
    """Return numbers that change with a file; empty when it was removed since it was listed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode)
