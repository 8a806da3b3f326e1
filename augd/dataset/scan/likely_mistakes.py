"""Finds likely mistakes in a dataset, for `serve`, `check` and `connect`.

Called once an index is open. Finds a table that lies unread beside the images whose labels it
holds, and images that are all of one class.

Invariants: a finding stops nothing; only a few tables are opened, and of each only the first line
is read. Imports no NumPy.
"""

from __future__ import annotations

import os
from typing import Final

from augd.dataset.index_file import IndexFile
from augd.dataset.scan.manifest_csv_jsonl import names_files
from augd.dataset.scan_result import shown
from augd.dataset.source_spec import MANIFEST_SUFFIXES
from augd.dataset.stores.address import is_address

_LINE_BYTES: Final = 4096


def doubts_of(index: IndexFile) -> list[str]:
    """Return one line per likely mistake."""
    found = []
    header = index.header
    is_address_or_own = header.own or is_address(header.source)
    if not header.shards and not is_address_or_own and os.path.isdir(header.source):
        found = [
            f"{shown(name)} lies beside the images and is not read: did you mean augd serve "
            f"{shown(os.path.join(os.path.basename(header.source), name))}?"
            for name in _tables_beside(index)
        ]
    if len(index.classes) == 1 and not index.num_targets:
        found.append(
            f"all images are of one class, {index.classes[0]!r}: there is nothing to tell apart"
        )
    return found


def _tables_beside(index: IndexFile) -> list[bytes]:
    """Name the tables in the folder itself that list files, or that alone can tell classes."""
    endings = tuple(ending.encode() for ending in MANIFEST_SUFFIXES)
    names = [
        name
        for one in index.skipped
        for name in one.names
        if b"/" not in name and name.lower().endswith(endings)
    ]
    is_told = len(index.classes) > 1
    lists = [name for name in names if names_files(_first_line(index, name))]
    return lists or ([] if is_told else names)


def _first_line(index: IndexFile, name: bytes) -> str:
    """Read the beginning of a table; empty if it cannot be read."""
    try:
        fd = os.open(
            os.path.join(index.header.source, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        )
    except OSError:
        return ""
    try:
        return os.read(fd, _LINE_BYTES).partition(b"\n")[0].decode("utf-8-sig", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
