"""The messages between the daemon and the dashboard process, over their link.

Both belong to one installation and the dashboard inherits the link, so no other program sends these
messages. They are not part of the protocol of docs/protocol.md. Pure declarations.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, msgpack

from augd.protocol.messages import ArraySpec


class DashboardMessage(Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all messages of the dashboard's link."""


class Begin(DashboardMessage, frozen=True, tag="BEGIN"):
    """Daemon to dashboard, first: which requests the dashboard answers.

    With an empty `token` it answers every request whose Host is one of `hosts`. That rejects a web
    page elsewhere whose name was made to resolve to this machine (DNS rebinding).
    """

    token: str
    hosts: tuple[str, ...]
    datasets: tuple[str, ...]


class AskDataset(DashboardMessage, frozen=True, tag="ASK_DATASET"):
    """Dashboard to daemon: answered by Dataset. On demand, as a link holds only so many fds."""

    name: str


class Dataset(DashboardMessage, frozen=True, tag="DATASET"):
    """Daemon to dashboard: the two fds of the dataset's index come with the message."""


class AskSnapshot(DashboardMessage, frozen=True, tag="ASK"):
    """Dashboard to daemon: answered by Snapshot."""


class Snapshot(DashboardMessage, frozen=True, tag="SNAPSHOT"):
    """Daemon to dashboard: `Broker.snapshot`, and how long the daemon has run."""

    snapshot: dict[str, Any]
    uptime_s: float
    cpu_s: float


class Look(DashboardMessage, frozen=True, tag="LOOK"):
    """Dashboard to daemon: describe the batch in a slot, by default the one a client works on."""

    stream: int
    slot: int | None = None


class Nothing(DashboardMessage, frozen=True, tag="NOTHING"):
    """Daemon to dashboard: there is no such stream, or no client holds a batch of it."""


class Seen(DashboardMessage, frozen=True, tag="SEEN"):
    """Daemon to dashboard: where a batch lies. The arena's fd comes along, read-only."""

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
