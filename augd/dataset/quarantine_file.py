"""The quarantine on disk: which samples of a dataset killed their decoder, and in which content.

A file of JSON lines per dataset, named by its digest, in the user's state directory. The daemon
reads it at its start and appends to it before a verdict takes effect, so that a kill -9 loses none.
A person may read it and delete lines. Loads no NumPy.

Invariants: a line is written in one piece and synced. A line that is torn, malformed or out of
range is skipped, never an error. Only the daemon's user can read the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from augd.process.paths import user_folder

# The largest numbers that the wire carries: an entry is sent to each client that opens a stream.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

Entry = tuple[int, int, int]  # (sample, epoch, position)


class QuarantineLine(msgspec.Struct):
    """One verdict: from (epoch, position) on, the sample is masked in streams of this content."""

    path: str
    how: str
    sample: _Count
    epoch: _Epoch
    position: _Count
    content: str


def path_of(dataset_digest: str) -> Path:
    """Return where a dataset's quarantine is kept, even if it does not exist."""
    base = user_folder("XDG_STATE_HOME", ".local", "state")
    return Path(base) / "augd" / "quarantine" / f"{dataset_digest}.jsonl"


def load(dataset_digest: str, num_samples: int) -> dict[str, tuple[Entry, ...]]:
    """Read the entries of a dataset that has `num_samples` samples, by content."""
    try:
        lines = path_of(dataset_digest).read_bytes().splitlines()
    except OSError:
        return {}
    decoder = msgspec.json.Decoder(QuarantineLine)
    found: dict[str, tuple[Entry, ...]] = {}
    for text in lines:
        try:
            line = decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        entry = (line.sample, line.epoch, line.position)
        if line.sample < num_samples:
            found[line.content] = (*found.get(line.content, ()), entry)
    return found


def keep(dataset_digest: str, content: str, entry: Entry, path: str, how: str) -> Path:
    """Append an entry and wait until it is on disk; returns the file.

    Raises:
        OSError: it cannot be written.
    """
    kept = path_of(dataset_digest)
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(kept, flags, 0o600)
    try:
        line = msgspec.json.encode(QuarantineLine(path, how, *entry, content=content))
        os.write(fd, line + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    return kept
