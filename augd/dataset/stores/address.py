"""Addresses of datasets in an object store: `s3://BUCKET/PREFIX`, `https://HOST/PATH`.

Used before a daemon starts its producers, hence imports nothing slow. An address names a folder of
shards. HTTP cannot list a folder, so there it may also name a text file that lists them.

Invariants: no address holds a password or a signature, since addresses are shown and kept.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from augd.errors import OptionError

_SCHEMES: Final = ("s3", "http", "https")
LIST_SUFFIX: Final = ".txt"


class StoreAddress(NamedTuple):
    """A folder of shards in a store; `listing` is the file in it that names them, if one does."""

    scheme: str
    host: str
    """The bucket's name, or the host with its port."""
    path: str
    """Below the bucket or host, without slashes around it."""
    listing: str = ""

    @property
    def folder(self) -> str:
        """The folder's address, without a slash at its end."""
        return f"{self.scheme}://{self.host}/{self.path}".rstrip("/")

    def __str__(self) -> str:
        return f"{self.folder}/{self.listing}" if self.listing else self.folder

    @property
    def name(self) -> str:
        """The name of the dataset: its folder, or the bucket or host."""
        return self.path.rpartition("/")[2] or self.host.partition(":")[0]


def is_address(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether this is an address in a store and no path."""
    scheme, separator, _ = os.fsdecode(path).partition("://")
    return bool(separator) and scheme.lower() in _SCHEMES


def parse_store(text: str | bytes) -> StoreAddress:
    """Read an address.

    Raises:
        OptionError: it names no bucket or host, or holds what would be a secret.
    """
    from urllib.parse import urlsplit

    shown = os.fsdecode(text)
    try:
        parts = urlsplit(shown)
    except ValueError as error:  # of brackets; its text quotes nothing of the address
        raise OptionError(
            f"this address cannot be read: {error}; expected s3://BUCKET/PREFIX or "
            "https://HOST/PATH"
        ) from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise OptionError(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}: an address holds no "
            "password and no signature, as it is shown and kept; expected s3://BUCKET/PREFIX or "
            "https://HOST/PATH"
        )
    if not parts.netloc:
        raise OptionError(f"{shown}: expected s3://BUCKET/PREFIX or https://HOST/PATH")
    scheme, path = parts.scheme.lower(), parts.path.strip("/")
    listing = ""
    if scheme != "s3" and path.lower().endswith(LIST_SUFFIX):
        path, _, listing = path.rpartition("/")
    return StoreAddress(scheme, parts.netloc, path, listing)
