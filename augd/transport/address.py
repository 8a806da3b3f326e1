"""Addresses: `ipc://PATH` on one host, `tcp://HOST:PORT` anywhere.

Used by the daemon, its clients and producers. By default ipc paths lie in a directory of the user's
own, mode 0700, whose owner is checked. Opens no socket, except to probe whether a port listens.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from augd.errors import ConnectError, OptionError, UntrustedAddress

# sun_path has 108 bytes with its NUL; the longest suffix that is added is ".attach".
PATH_BYTES_MAX = 107
DEFAULT_NAME = "default"
_PROBE_S = 5.0
ENV_RUNTIME_DIR = "AUGD_RUNTIME_DIR"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host and a port. `host` is a name or a number; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    def is_loopback(self) -> bool:
        """Say whether only this machine can reach it."""
        host = self.host.strip("[]")
        if host == "localhost":
            return True
        import ipaddress

        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Address:
    """A path on this host: the ZeroMQ socket and the files that belong to it."""

    path: Path

    def __str__(self) -> str:
        return f"ipc://{self.path}"

    @property
    def attach_path(self) -> Path:
        """UNIX socket that passes the fds of arenas; also the clients' lifeline."""
        return self.path.with_name(self.path.name + ".attach")

    @property
    def bulk_path(self) -> Path:
        """Socket that carries pixels to clients which cannot map the arena."""
        return self.path.with_name(self.path.name + ".bulk")

    @property
    def rows_path(self) -> Path:
        """Socket that receives the rows of producers which this daemon did not start."""
        return self.path.with_name(self.path.name + ".rows")

    @property
    def lock_path(self) -> Path:
        """Held by flock while a daemon lives; holds its pid."""
        return self.path.with_name(self.path.name + ".lock")


def runtime_dir() -> Path:
    """Return the private directory: $AUGD_RUNTIME_DIR, $XDG_RUNTIME_DIR/augd or one in /tmp."""
    chosen = os.environ.get(ENV_RUNTIME_DIR)
    if chosen:
        return Path(chosen)
    session_dir = os.environ.get("XDG_RUNTIME_DIR")
    if session_dir and Path(session_dir).is_dir():
        return Path(session_dir) / "augd"
    return Path(f"/tmp/augd-{os.getuid()}")


def make_runtime_dir(folder: Path) -> None:
    """Make the directory of an address with mode 0700.

    Raises:
        OptionError: it can't be made, belongs to another user, or others may write to it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"{folder} cannot be made for the daemon's sockets: {error.strerror}. "
            f"Set {ENV_RUNTIME_DIR} to a directory that you may write to, or use --listen"
        ) from None
    check_private(folder)


def check_private(folder: Path) -> None:
    """Refuse a directory in which another user could have put a socket.

    Root's directories are allowed, as /tmp is. Raises OptionError.
    """
    fault = _find_fault(folder)
    if fault:
        raise OptionError(fault)


def _find_fault(folder: Path) -> str:
    """Say why another user could put files into a directory; empty if that is impossible."""
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        return (
            f"{folder} is a link to {os.path.realpath(folder)}, expected a directory: name that "
            f"itself, in the address or in {ENV_RUNTIME_DIR}"
        )
    if found.st_uid not in (os.geteuid(), 0):
        return (
            f"{folder} belongs to user {found.st_uid}, expected {os.geteuid()}: "
            f"set {ENV_RUNTIME_DIR} to a directory of your own"
        )
    if stat.S_IMODE(found.st_mode) & 0o022 and not found.st_mode & stat.S_ISVTX:
        return f"{folder} can be written by other users, expected mode 0700: chmod 700 {folder}"
    return ""


def check_path(address: Address) -> bool:
    """Say whether there is a socket at a path; it must be this user's, and private.

    The path could still change before the connection: augd/transport/peer_monitor.py checks whose
    process answers.

    Raises:
        UntrustedAddress: another user could have put it there, or can replace it.
    """
    path = address.path
    try:
        fault = _find_fault(path.parent)
        if fault:
            raise UntrustedAddress(f"{address} is not trusted: {fault}")
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UntrustedAddress(
            f"{address} is not trusted: it cannot be examined: {error.strerror}"
        ) from None
    if stat.S_ISLNK(found.st_mode):
        raise UntrustedAddress(
            f"{address} is not trusted: it is a link to {os.path.realpath(path)}, expected a "
            "daemon's socket: name that itself"
        )
    if not stat.S_ISSOCK(found.st_mode):
        return False
    if found.st_uid != os.geteuid():
        raise UntrustedAddress(
            f"{address} is not trusted: it belongs to user {found.st_uid}, expected "
            f"{os.geteuid()}: connect to a daemon of your own, or as that user"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise UntrustedAddress(
            f"{address} is not trusted: others can use it (mode {mode:04o}), expected 0600 as a "
            "daemon makes it: start the daemon again"
        )
    return True


def parse_address(text: str | None) -> Address | TcpAddress:
    """Parse an address; None is the user's default daemon.

    Raises:
        OptionError: the scheme is unknown, the port no port, or the path too long.
    """
    if text is None:
        return _parse_path(str(runtime_dir() / DEFAULT_NAME))
    if not isinstance(text, str):
        raise OptionError(f"address: expected ipc://PATH or tcp://HOST:PORT, got {text!r}")
    scheme, _, rest = text.partition("://")
    if scheme == "ipc" and rest and "\0" not in rest:
        return _parse_path(rest)
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isascii() and port.isdigit() and int(port) < 65536:
        return TcpAddress(host, int(port))
    raise OptionError(f"address: expected ipc://PATH or tcp://HOST:PORT, got {text!r}")


def _parse_path(text: str) -> Address:
    path = Path(text).absolute()
    if not os.fsencode(path).isascii():
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise OptionError(
                f"address: expected a path in UTF-8, got {os.fsencode(path)!r}: choose another one "
                f"with --listen ipc://PATH, or set {ENV_RUNTIME_DIR}"
            ) from None
    longest = len(os.fsencode(path)) + len(".attach")
    if longest > PATH_BYTES_MAX:
        raise OptionError(
            f"address: {path} has {longest - len('.attach')} bytes, a UNIX socket's path may have "
            f"{PATH_BYTES_MAX - len('.attach')}: choose a shorter one or set {ENV_RUNTIME_DIR}"
        )
    return Address(path)


def bulk_address(address: Address | TcpAddress, port: int) -> Address | TcpAddress:
    """Return the address of a daemon's bulk socket: beside the path, or at a port of the host."""
    if isinstance(address, Address):
        return Address(address.bulk_path)
    return TcpAddress(address.host, port)


def rows_address(address: Address | TcpAddress, port: int) -> Address | TcpAddress:
    """Return the address of a daemon's rows socket: beside the path, or at a port of the host."""
    if isinstance(address, Address):
        return Address(address.rows_path)
    return TcpAddress(address.host, port)


def require_daemon(address: Address | TcpAddress) -> None:
    """Check that a daemon can be there, so that a typo in an address fails at once.

    Raises:
        ConnectError: there is no socket at the path, or nothing listens at the port.
        UntrustedAddress: another user could be at the path.
    """
    if isinstance(address, TcpAddress):
        _require_listener(address)
        return
    if not check_path(address):
        raise ConnectError(no_daemon(address))


def _require_listener(address: TcpAddress) -> None:
    """Connect once and close: ZeroMQ itself would retry for ever without an error."""
    try:
        with socket.create_connection((address.host.strip("[]"), address.port), _PROBE_S) as probe:
            # A free port of this host can, by chance, be connected to itself.
            if probe.getsockname() == probe.getpeername():
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    except OSError as error:
        raise ConnectError(f"{no_daemon(address)} ({error.strerror or error})") from None


def no_daemon(address: Address | TcpAddress) -> str:
    """Say that no daemon answers at an address, and what to do."""
    is_default = isinstance(address, Address) and address.path.name == DEFAULT_NAME
    listen = "" if is_default else f" --listen {address}"
    return (
        f"no daemon at {address}: start one with `augd serve PATH{listen}`, "
        "or pass the address that it printed"
    )
