"""What the daemon and the page's process say to each other over their link.

Both are of one installation and the link is inherited, so that no other program speaks this: it is
no part of the protocol that docs/protocol.md promises. Pure declarations.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, msgpack

from augd.protocol.messages import ArraySpec


class DashboardMessage(Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all."""


class Begin(DashboardMessage, frozen=True, tag="BEGIN"):
    """Daemon to page, first: who may look, and by which names the page is called.

    Without a `token` everybody who reaches the port may look, as long as he calls it by one of
    `hosts`: a web page elsewhere whose name was made to mean this machine is refused.
    """

    token: str
    hosts: tuple[str, ...]
    datasets: tuple[str, ...]


class AskDataset(DashboardMessage, frozen=True, tag="ASK_DATASET"):
    """Page to daemon: answered by Dataset. Asked for, since a link holds only so many fds."""

    name: str


class Dataset(DashboardMessage, frozen=True, tag="DATASET"):
    """Daemon to page: the two fds of the data set's index ride along."""


class AskSnapshot(DashboardMessage, frozen=True, tag="ASK"):
    """Page to daemon: answered by Snapshot."""


class Snapshot(DashboardMessage, frozen=True, tag="SNAPSHOT"):
    """Everything that `Broker.snapshot` says, and how long the daemon has run."""

    snapshot: dict[str, Any]
    uptime_s: float
    cpu_s: float


class Look(DashboardMessage, frozen=True, tag="LOOK"):
    """Page to daemon: what lies in this slot, by default in the one in a reader's hand?"""

    stream: int
    slot: int | None = None


class Nothing(DashboardMessage, frozen=True, tag="NOTHING"):
    """Daemon to page: no such stream, or nobody reads a batch of it."""


class Seen(DashboardMessage, frozen=True, tag="SEEN"):
    """Daemon to page: where a batch lies. The arena's fd rides along, for reading only."""

    stream: int
    dataset: str
    epoch: int
    number: int
    rows: int
    slot: int
    generation: int
    arrays: tuple[ArraySpec, ...]
    slot_bytes: int
    num_slots: int
    recipe: dict[str, Any]
    seed: int
    classes: tuple[str, ...] | None
    is_balanced: bool


AnyDashboardMessage = Begin | AskDataset | Dataset | AskSnapshot | Snapshot | Look | Nothing | Seen

encode = msgpack.Encoder().encode
decode = msgpack.Decoder(AnyDashboardMessage).decode
