"""The dashboard's port: the daemon parses, checks and binds it before anything is started.

So a port that is in use, or open to other hosts without a token, is an error at the start. A
dashboard that exits is restarted at the same port. The daemon itself accepts no connection here.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from augd.errors import AddressInUse, OptionError
from augd.transport.auth.key_files import read_secret

TOKEN_VARIABLE = "AUGD_HTTP_TOKEN"
_TOKEN_MIN = 16  # characters; `openssl rand -hex 16` gives 32
_TOKEN_MAX = 256
_BACKLOG = 64
# Without ports, since `ssh -L` has another one.
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(slots=True)
class HttpListener:
    """Where the dashboard is served: a listening socket, its token, and its host names."""

    listener: socket.socket
    token: str  # empty without a token
    hosts: tuple[str, ...]  # empty: any, since the token authenticates

    @property
    def url(self) -> str:
        """The URL to open in a browser."""
        host, port = self.listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def open_listener(text: str, token_file: str | None) -> HttpListener:
    """Read the token and listen.

    Args:
        text: HOST:PORT, `[::1]:PORT` for IPv6, port 0 for a free one.
        token_file: a file with the token; without it $AUGD_HTTP_TOKEN, if that is set.

    Raises:
        OptionError: the address or the token is invalid, or other hosts could connect without one.
        AddressInUse: another process listens there.
    """
    host, port = _parse(text)
    token = _read_token(token_file)
    if not token and not _is_loopback(host):
        raise OptionError(
            f"--http {text}: every host that reaches this port could see the images; use "
            f"127.0.0.1:{port} "
            "(from elsewhere: ssh -L), or set a token: --http-token FILE with 16 or more "
            f"characters in it, or ${TOKEN_VARIABLE}"
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(found[4][:2], family=found[0], backlog=_BACKLOG)
    except OSError as error:
        kind = AddressInUse if error.errno == 98 else OptionError
        raise kind(
            f"--http {text}: cannot listen there ({error.strerror}); choose another port, 0 for a "
            "free one"
        ) from None
    return HttpListener(listener, token, () if token else _LOCAL_NAMES)


def _parse(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise OptionError(f"--http: expected HOST:PORT, as 127.0.0.1:8600, got {text!r}")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_token(file: str | None) -> str:
    if file is not None:
        token, where = read_secret(Path(file)).decode("utf-8", "replace").strip(), file
    else:
        # Removed, since producers inherit the environment and don't need it.
        token, where = os.environ.pop(TOKEN_VARIABLE, "").strip(), f"${TOKEN_VARIABLE}"
        if not token:
            return ""
    is_sound = token.isascii() and token.isprintable() and " " not in token
    if not is_sound or not _TOKEN_MIN <= len(token) <= _TOKEN_MAX:
        raise OptionError(
            f"{where}: expected a token of {_TOKEN_MIN}..{_TOKEN_MAX} ASCII characters without "
            f"spaces, got one of {len(token)}; `openssl rand -hex 16` makes one"
        )
    return token
