"""The clients whose keys a daemon knows, as their files say now: looked at again while it serves.

A connection is bound to a name *and* a key, so that a client that got a new key is let in by it and
by nothing else. A file that is damaged takes its own client out, and nobody else.
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
    """The clients that a folder of keys names, as of the last look."""

    def __init__(self, folder: Path) -> None:
        """Read the folder, which must be nobody else's to write."""
        self._folder = folder
        self._marks: dict[str, tuple[int, ...]] = {}
        self._known: dict[str, keys.KnownClient] = {}
        self.users: dict[bytes, str] = {}
        self._rights: dict[str, Rights] = {}
        self.look_again()

    def rights_of(self, user: str) -> Rights | None:
        """Return what the owner of a connection may do now; None when he may nothing."""
        return self._rights.get(user)

    def may_produce(self, user: str) -> bool:
        """Say whether producers may join with the key of a connection now."""
        rights = self._rights.get(user)
        return rights is not None and rights.may_produce

    def look_again(self) -> list[str]:
        """Read what has changed; return the names of clients whose key or rights did."""
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
            _log.error("client %s is not let in: %s", name, found)

    def _read_marks(self) -> dict[str, tuple[int, ...]]:
        """Mark each file, none when the folder can't be trusted."""
        below = keys.clients_folder(self._folder)
        try:
            check_folder(below)
            marks = {name: _mark(path) for name, path in keys.client_files(self._folder)}
            return {name: mark for name, mark in marks.items() if mark}
        except (OSError, OptionError) as error:
            if self._marks:
                _log.error("no client is let in: %s", error)
            return {}

    def _index(self) -> None:
        """Bind each connection to a name and a key: another key of that name is another user."""
        self.users, self._rights = {}, {}
        for name, known in sorted(self._known.items()):
            raw = z85.decode(known.public)
            if raw in self.users:
                _log.error("client %s is not let in: %s has the same key", name, self.users[raw])
                continue
            user = f"{name}/{keys.fingerprint(known.public)}"
            self.users[raw] = user
            self._rights[user] = known.rights

    def __len__(self) -> int:
        """Clients that are let in."""
        return len(self.users)


def _mark(path: Path) -> tuple[int, ...]:
    """Say what changes when a file does; nothing when it went away since it was listed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode)
