"""Keys for tests: a daemon's folder, and clients in it that a running daemon has noticed."""

from __future__ import annotations

from pathlib import Path

from augd.protocol.permissions import Rights
from augd.transport.auth import keys
from augd.transport.auth.curve import ClientCurve


class Keyring:
    """A folder of keys, and the clients' own files beside it."""

    def __init__(self, below: Path) -> None:
        self.folder = below / "keys"
        self._below = below
        self.server = keys.make_server_pair(self.folder).public
        self._pairs: dict[str, keys.Pair] = {}

    def let_in(self, name: str, **rights: object) -> Path:
        """Register a client, once; returns its own file."""
        path = self._below / f"{name}.key"
        if name not in self._pairs:
            pair = self._pairs[name] = keys.make_pair()
            keys.write_client_keys(path, keys.ClientKeys(name, pair, self.server))
            keys.register(self.folder, keys.KnownClient(pair.public, Rights(name, **rights)))
        return path

    def stranger(self) -> Path:
        """Make the file of a client that isn't registered."""
        path = self._below / f"stranger{len(list(self._below.iterdir()))}.key"
        stranger = keys.ClientKeys("stranger", keys.make_pair(), self.server)
        keys.write_client_keys(path, stranger)
        return path

    def curve(self, name: str, **rights: object) -> ClientCurve:
        """Return what a client that is let in sets on its sockets."""
        return ClientCurve(keys.read_client_keys(self.let_in(name, **rights)))

    def file_of(self, name: str) -> Path:
        """Return what the operator edits."""
        return keys.client_path(self.folder, name)
