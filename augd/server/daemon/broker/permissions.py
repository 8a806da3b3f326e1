"""What a client with a key may do, by the rights that the operator wrote beside its key.

The broker (augd/server/daemon/broker/broker.py) checks them before it makes anything for a client,
and before it sends one anything. Clients without rights (`rights` is None) came over a socket that
needs no key: for them every check passes. Pure; never reveals what a client may not read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol

from augd.errors import AugdError, DatasetError, Forbidden, OverLimit, counted
from augd.protocol.permissions import Rights

# The end of a session may be noticed after seconds: a client that reconnects has two meanwhile.
_SESSIONS_PER_STREAM = 2


class Holder(Protocol):
    """The part of a session that is checked here."""

    number: int
    rights: Rights | None

    @property
    def is_streaming(self) -> bool:
        """Whether it has a stream, or one in the making."""

    @property
    def arena(self) -> tuple[int, int]:
        """Its stream, which others may share, and the bytes of the arena; zeros without one."""


def is_same(one: Rights | None, other: Rights | None) -> bool:
    """Say whether two messages come from clients with the same key, or without one."""
    return (one.name if one else None) == (other.name if other else None)


def find_dataset(name: str | None, served: Collection[str], rights: Rights | None) -> str:
    """Return the dataset that a client asks for, or the only one when it names none.

    Raises:
        DatasetError: there is none of that name, or there are several.
        Forbidden: it is not among those that the client may read; whether it exists is not
            revealed.
    """
    is_bound = rights is not None and rights.datasets is not None
    seen = sorted(one for one in served if _may_read(rights, one))
    known = ", ".join(seen)
    refusal: type[AugdError] = Forbidden if is_bound else DatasetError
    if name is None:
        if len(seen) == 1:
            return seen[0]
        if not seen:
            raise refusal("dataset: this key may read none that is served here")
        raise DatasetError(f"dataset: the daemon serves several, name one of: {known}")
    if name not in seen:
        raise refusal(f"dataset: {name!r} is not served here, expected one of: {known or 'none'}")
    return name


def readable(rights: Rights | None, datasets: Iterable[str]) -> set[str]:
    """List the datasets that a client may read."""
    return {name for name in datasets if _may_read(rights, name)}


def _may_read(rights: Rights | None, dataset: str) -> bool:
    return rights is None or rights.datasets is None or dataset in rights.datasets


def check_session(rights: Rights | None, sessions: Iterable[Holder]) -> None:
    """Reject a session beyond what a client may have, so that no client takes all of them.

    Raises:
        OverLimit: with both figures.
    """
    if rights is None:
        return
    num_open = len(_of(rights, sessions))
    allowed = _SESSIONS_PER_STREAM * rights.max_streams
    if num_open >= allowed:
        raise OverLimit(
            f"{rights.name!r} has {num_open} sessions open, the limit is {allowed} for "
            f"max_streams={rights.max_streams}; close some"
        )


def check_stream(rights: Rights | None, sessions: Iterable[Holder]) -> None:
    """Reject a stream beyond what a client may have.

    Raises:
        OverLimit: with both figures.
    """
    if rights is None:
        return
    num_open = sum(one.is_streaming for one in _of(rights, sessions))
    if num_open >= rights.max_streams:
        raise OverLimit(
            f"{rights.name!r} has {counted(num_open, 'stream')} open, the limit of this key is "
            f"max_streams={rights.max_streams}; close one, or ask the daemon's operator for more"
        )


def check_memory(rights: Rights | None, sessions: Iterable[Holder], size_bytes: int) -> None:
    """Reject a stream whose memory exceeds what all streams of a client may have together.

    Raises:
        OverLimit: with the figures.
    """
    if rights is None:
        return
    taken = sum(dict(one.arena for one in _of(rights, sessions)).values())
    if taken + size_bytes > rights.max_bytes:
        raise OverLimit(
            f"the stream takes {size_bytes / 1e9:.3f} GB and {rights.name!r} has "
            f"{taken / 1e9:.3f} GB already, "
            f"the limit of this key is max_gigabytes={rights.max_bytes / 1e9:g}; use a "
            "smaller batch_size or prefetch"
        )


def seen_by(
    rights: Rights | None, snapshot: dict[str, Any], sessions: Iterable[Holder]
) -> dict[str, Any]:
    """Reduce a snapshot to the client's own streams and datasets, without the server's paths."""
    if rights is None:
        return snapshot
    own = {one.number for one in _of(rights, sessions)}
    datasets = {
        name: {**facts, "root": "", "sent": {}}
        for name, facts in snapshot["datasets"].items()
        if _may_read(rights, name)
    }
    streams = [one for one in snapshot["streams"] if one["session"] in own]
    return {**snapshot, "datasets": datasets, "streams": streams, "made": {}}


def _of(rights: Rights, sessions: Iterable[Holder]) -> list[Holder]:
    return [one for one in sessions if one.rights is not None and one.rights.name == rights.name]
