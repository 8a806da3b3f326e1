"""Key files: the daemon's, one for each client that it knows, and the client's own.

    KEYS/server.key           secret and public key of the daemon
    KEYS/clients/NAME.toml    a client's public key and rights, for the operator to edit
    NAME.key                  a client's secret and public key, and the daemon's public one

All are TOML, with keys in Z85 as ZeroMQ writes them. Files with a secret are made with mode 0600,
and never over another file. They are refused if they are links, not plain files, of another user,
or open to others. Nothing here puts a key into an error, a log or a command line.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from augd.errors import OptionError
from augd.process.paths import NO_HOME, user_folder
from augd.protocol.permissions import BYTES_DEFAULT, STREAMS_DEFAULT, Rights
from augd.transport.auth.curve import ENV_KEYS
from augd.transport.auth.key_files import make_folder, read_table, write_new

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_GIGABYTE = 10**9
STREAMS_MAX = 10_000
GIGABYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """A public key and its secret, in Z85. The secret is never shown."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client needs to reach its daemon."""

    name: str
    pair: Pair
    server: bytes


@dataclass(frozen=True, slots=True)
class KnownClient:
    """A client that the daemon knows."""

    public: bytes
    rights: Rights


def default_folder() -> Path:
    """Return where an operator's keys are: $XDG_CONFIG_HOME/augd/keys.

    Raises:
        OptionError: the user has no home.
    """
    config = user_folder("XDG_CONFIG_HOME", ".config")
    if config.startswith(f"{NO_HOME}/"):
        raise OptionError("keys: this user has no home: name a folder, --dir DIR")
    return Path(config) / "augd" / "keys"


def check_name(name: str) -> None:
    """Refuse a name that is not a safe file name.

    Raises:
        OptionError: names the characters that are allowed.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            "NAME: expected 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or "
            f"a digit, got {name[:80]!r}"
        )


def make_pair() -> Pair:
    """Make a key pair whose public key can be an argument of a command line."""
    while True:
        public, secret = zmq.curve_keypair()
        if not public.startswith(b"-"):
            return Pair(public, secret)


def fingerprint(public: bytes) -> str:
    """Shorten a public key to 16 hexadecimal digits, for people to compare."""
    return hashlib.blake2b(public, digest_size=8).hexdigest()


# the daemon's side


def make_server_pair(folder: Path) -> Pair:
    """Return the daemon's pair; make the folder and the pair if they are missing."""
    make_folder(folder)
    path = folder / "server.key"
    if not path.exists() and not path.is_symlink():
        pair = make_pair()
        head = "The daemon's key. Whoever has the secret can pass for this daemon."
        write_new(path, _toml(head, public=pair.public, secret=pair.secret))
    return read_server_pair(folder)


def read_server_pair(folder: Path) -> Pair:
    """Read the daemon's pair.

    Raises:
        OptionError: it is missing, damaged, or others could have read it.
    """
    path = folder / "server.key"
    if not path.exists() and not path.is_symlink():
        raise OptionError(
            f"{path} is missing: make it, and a first client, with `augd keys new NAME`"
        )
    return _pair_of(read_table(path, is_secret=True), path)


def clients_folder(folder: Path) -> Path:
    """Return the folder of the clients' files."""
    return folder / "clients"


def client_path(folder: Path, name: str) -> Path:
    """Return the file of a client.

    Raises:
        OptionError: the name is none.
    """
    check_name(name)
    return clients_folder(folder) / f"{name}.toml"


def register(folder: Path, known: KnownClient) -> Path:
    """Write the file of a new client; a running daemon reads it within a second.

    Raises:
        OptionError: there is a client of this name, or with this key.
    """
    rights = known.rights
    path = client_path(folder, rights.name)
    make_folder(folder)
    make_folder(path.parent)
    for other, found in read_clients(folder).items():
        if isinstance(found, KnownClient) and found.public == known.public:
            raise OptionError(f"this key is already known, as {other!r}: make a pair per client")
    lines = [f'public = "{known.public.decode()}"']
    if rights.datasets is not None:
        lines.append("datasets = [" + ", ".join(map(_quote, rights.datasets)) + "]")
    lines.append(f"max_streams = {rights.max_streams}")
    lines.append(f"max_gigabytes = {rights.max_bytes / _GIGABYTE:g}")
    if rights.may_produce:
        lines.append("produce = true")
    head = (
        f"# What {rights.name} may do. Without `datasets`: all of them. Remove the file to revoke."
    )
    write_new(path, "\n".join([head, *lines, ""]))
    return path


def forget(folder: Path, name: str) -> None:
    """Remove the file of a client; a running daemon ends its sessions within a second.

    Raises:
        OptionError: there is no such client.
    """
    path = client_path(folder, name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise OptionError(
            f"{path} does not exist; `augd keys list` prints the known clients"
        ) from None


def read_clients(folder: Path) -> dict[str, KnownClient | OptionError]:
    """Read all clients' files, by name; the error of an invalid file stands in its place."""
    return {name: read_client(path) for name, path in client_files(folder)}


def read_client(path: Path) -> KnownClient | OptionError:
    """Read one client's file; return the error if it is invalid."""
    try:
        table = read_table(path, is_secret=False)
        return KnownClient(_key_of(table, "public", path), _rights_of(table, path))
    except OptionError as error:
        return error


def client_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the names of clients and their files, in order."""
    below = clients_folder(folder)
    try:
        names = sorted(os.listdir(below))
    except FileNotFoundError:
        return
    for file in names:
        name = file.removesuffix(".toml")
        if name != file and _NAME.fullmatch(name):
            yield name, below / file


def _rights_of(table: Mapping[str, Any], path: Path) -> Rights:
    fields = ("public", "datasets", "max_streams", "max_gigabytes", "produce")
    unknown = sorted(table.keys() - set(fields))
    if unknown:
        raise OptionError(
            f"{path}: {unknown[0][:80]!r} is no field of a client; expected {', '.join(fields)}"
        )
    datasets = table.get("datasets")
    if datasets is not None and not _are_names(datasets):
        raise OptionError(f"{path}: datasets: expected a list of names, or no such line for all")
    streams = _number_of(table, "max_streams", STREAMS_DEFAULT, STREAMS_MAX, path)
    gigabytes = _number_of(table, "max_gigabytes", BYTES_DEFAULT / _GIGABYTE, GIGABYTES_MAX, path)
    if streams != int(streams):
        raise OptionError(f"{path}: max_streams: expected a whole number, got {streams}")
    may_produce = table.get("produce", False)
    if not isinstance(may_produce, bool):
        raise OptionError(f"{path}: produce: expected true or false, got {may_produce!r:.80}")
    return Rights(
        name=path.name.removesuffix(".toml"),
        datasets=None if datasets is None else tuple(datasets),
        max_streams=int(streams),
        max_bytes=int(gigabytes * _GIGABYTE),
        may_produce=may_produce,
    )


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _number_of(
    table: Mapping[str, Any], name: str, default: float, high: float, path: Path
) -> float:
    value = table.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
        raise OptionError(f"{path}: {name}: expected a number in 0..{high:g}, got {value!r:.80}")
    return value


# the client's side


def write_client_keys(path: Path, keys: ClientKeys) -> None:
    """Write the client's own file, the only one with its secret.

    Raises:
        OptionError: the file exists; it is not overwritten.
    """
    head = (
        f"The key of {keys.name} for one daemon: give it as --keys or ${ENV_KEYS}. Keep it secret."
    )
    text = _toml(
        head, public=keys.pair.public, secret=keys.pair.secret, server=keys.server, name=keys.name
    )
    write_new(path, text)


def read_client_keys(path: Path) -> ClientKeys:
    """Read a client's own file.

    Raises:
        OptionError: it is missing, damaged, or others could have read it.
    """
    table = read_table(path, is_secret=True)
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(f"{path}: name: expected the client's name; {_AGAIN}")
    return ClientKeys(name, _pair_of(table, path), _key_of(table, "server", path))


def parse_public(text: str, name: str) -> bytes:
    """Parse a public key that a user typed.

    Raises:
        OptionError: it is no key. The error doesn't quote the text: it might be a secret.
    """
    if not _KEY.fullmatch(text):
        raise OptionError(
            f"{name}: expected 40 characters of Z85 as `augd keys` prints them, got {len(text)} "
            "characters; put them in 'single quotes', a shell changes them otherwise"
        )
    return text.encode()


# the contents

_AGAIN = "it is damaged; make another one with `augd keys new NAME`"


def _pair_of(table: Mapping[str, Any], path: Path) -> Pair:
    pair = Pair(_key_of(table, "public", path), _key_of(table, "secret", path))
    if zmq.curve_public(pair.secret) != pair.public:
        raise OptionError(f"{path}: the two keys are not a pair; {_AGAIN}")
    return pair


def _key_of(table: Mapping[str, Any], name: str, path: Path) -> bytes:
    value = table.get(name)
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise OptionError(f"{path}: {name}: expected a key of 40 characters of Z85; {_AGAIN}")
    return value.encode()


def _toml(head: str, **values: bytes | str) -> str:
    plain = {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}
    return "\n".join([f"# {head}", *(f'{name} = "{plain[name]}"' for name in plain), ""])


def _quote(name: str) -> str:
    """Write a dataset's name as a TOML string.

    JSON's escapes are valid in TOML, except for surrogate pairs, and TOML also escapes DEL.
    """
    import json

    try:
        name.encode()
    except UnicodeEncodeError:
        raise OptionError(f"dataset {name!r}: expected a name in UTF-8. Rename it") from None
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
