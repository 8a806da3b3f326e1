"""`augd keys`: make, register, list and remove the keys of clients that connect to a daemon's port.

For the operator of a daemon. A running daemon applies changes within a second. The commands print
public keys and fingerprints, and never a private key.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from augd.cli.options import ClientRights, KeysAddOptions, KeysNewOptions
from augd.errors import OptionError
from augd.protocol.permissions import Rights
from augd.transport.auth import keys

_PIPED_COLUMNS = 160


def rights_of(name: str, asked: ClientRights) -> Rights:
    """Make the rights of a client; no datasets are all of them.

    Raises:
        OptionError: an option is out of its range.
    """
    for option, value, high in (
        ("--max-streams", asked.max_streams, keys.STREAMS_MAX),
        ("--max-gigabytes", asked.max_gigabytes, keys.GIGABYTES_MAX),
    ):
        if not 0 <= value <= high:
            raise OptionError(f"{option}: expected 0..{high}, got {value:g}")
    datasets = asked.datasets or None
    max_bytes = int(asked.max_gigabytes * 10**9)
    return Rights(name, datasets, asked.max_streams, max_bytes, asked.produce)


def run_new(options: KeysNewOptions) -> None:
    """Make a client's pair, here or, with a daemon's public key, for a daemon elsewhere."""
    if options.server is None:
        _make_and_register(options)
    else:
        _make_only(options.name, options.server, options.out)


def _make_and_register(options: KeysNewOptions) -> None:
    """Make a client's pair, register it, and write NAME.key to hand over."""
    folder, name = options.folder or keys.default_folder(), options.name
    target = _target(name, options.out)
    registered = keys.client_path(folder, name)
    if registered.exists():
        raise OptionError(
            f"{registered} exists: `augd keys remove {name}` first, or choose another name"
        )
    rights = rights_of(name, options)
    server, pair = keys.make_server_pair(folder), keys.make_pair()
    keys.write_client_keys(target, keys.ClientKeys(name, pair, server.public))
    try:
        keys.register(folder, keys.KnownClient(pair.public, rights))
    except BaseException:
        target.unlink()
        raise
    print(
        f"{registered}: what {name} may do, to edit\n"
        f"{target}: the key of {name} ({keys.fingerprint(pair.public)}); hand it over and keep no "
        f"copy\n"
        f"On the daemon's host: augd serve PATH --listen tcp://0.0.0.0:PORT --keys {folder}\n"
        f"On the trainer's:     connect('tcp://HOST:PORT', keys='{target.name}')"
    )


def _make_only(name: str, server: str, out: Path | None) -> None:
    """Make a key pair on the client's host, so that the private key never leaves it."""
    target = _target(name, out)
    pair = keys.make_pair()
    public = keys.parse_public(server, "--server")
    keys.write_client_keys(target, keys.ClientKeys(name, pair, public))
    print(
        f"{target}: your key ({keys.fingerprint(pair.public)})\n"
        f"Have the daemon's operator run: augd keys add {name} '{pair.public.decode()}'"
    )


def _target(name: str, out: Path | None) -> Path:
    keys.check_name(name)
    out = out or Path()
    return out / f"{name}.key" if out.is_dir() else out


def run_add(options: KeysAddOptions) -> None:
    """Register a public key that was made on the client's host."""
    folder, name, public = options.folder or keys.default_folder(), options.name, options.public
    known = keys.KnownClient(keys.parse_public(public, "PUBLIC_KEY"), rights_of(name, options))
    keys.make_server_pair(folder)
    print(f"{keys.register(folder, known)}: what {name} may do, to edit")


def run_remove(folder: Path | None, name: str) -> None:
    """Remove a client's key; the daemon closes what the client has open."""
    keys.forget(folder or keys.default_folder(), name)
    print(f"{name} is removed; a running daemon closes what it has open")


def run_list(folder: Path | None) -> None:
    """Print the daemon's public key and what each client may do."""
    folder = folder or keys.default_folder()
    print(f"{folder}: the daemon's public key is '{keys.read_server_pair(folder).public.decode()}'")
    table = Table(
        "client", "fingerprint", "datasets", "streams", "GB", "produces", box=None, pad_edge=False
    )
    clients = keys.read_clients(folder)
    for name, found in clients.items():
        table.add_row(*map(Text, (name, *_cells(found))))
    if clients:
        Console(highlight=False, width=_PIPED_COLUMNS).print(table)


def _cells(found: keys.KnownClient | OptionError) -> tuple[str, ...]:
    if isinstance(found, OptionError):
        return ("not let in:", str(found))
    rights = found.rights
    datasets = "all" if rights.datasets is None else ", ".join(rights.datasets)
    return (
        keys.fingerprint(found.public),
        datasets,
        str(rights.max_streams),
        f"{rights.max_bytes / 1e9:g}",
        "yes" if rights.may_produce else "",
    )
