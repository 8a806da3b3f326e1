"""The typed messages of the protocol (docs/protocol.md, section 3), gathered from three modules.

Everything that travels between client, daemon and producer is one of these, as a tagged msgpack
map. Which messages a socket accepts is a union below. Pure declarations: nothing here opens, waits
or allocates.

Rules for change: a new field gets a default, so that two neighbouring releases understand each
other. A changed or removed field raises `PROTOCOL_VERSION`. Unknown fields are ignored, unknown
types are an error.
"""

from __future__ import annotations

from augd.plan.order.repeat_option import Repeats
from augd.protocol.client_messages import (
    Arena,
    AttachMessage,
    BatchMessage,
    Bye,
    Detached,
    EpochEnd,
    Error,
    Flow,
    Hello,
    Join,
    Joined,
    Notice,
    Open,
    Opened,
    Paths,
    PathsReply,
    Piece,
    Ping,
    Pong,
    QuarantinedMessage,
    Release,
    Status,
    StatusReply,
    Welcome,
)
from augd.protocol.message_parts import (
    ArraySpec,
    BadRow,
    CacheEntry,
    Chosen,
    Count,
    Digest,
    Epoch,
    Fraction,
    Layout,
    Message,
    Name,
    Path,
    PhaseArrays,
    Quarantine,
    Quarantined,
    Seed,
    Selection,
    Share,
    Small,
    Spec,
    Sum,
    Text,
)
from augd.protocol.producer_messages import (
    Alive,
    Beat,
    Cached,
    CacheMessage,
    DatasetMessage,
    Done,
    Drain,
    Drop,
    Dropped,
    Ended,
    Fail,
    Kill,
    LastWords,
    Lease,
    Mask,
    Part,
    Ready,
    Revoke,
    Room,
    StreamMessage,
    Trouble,
)

PROTOCOL_VERSION = 1

FromClient = Hello | Open | Flow | Release | Bye | Status | Paths | Ping | Join
ToClient = (
    Welcome
    | Opened
    | BatchMessage
    | EpochEnd
    | QuarantinedMessage
    | Detached
    | Notice
    | Error
    | StatusReply
    | PathsReply
    | Pong
    | Joined
)
FromProducer = Ready | Done | Dropped | Fail | Cached | Alive | LastWords | Trouble
ToProducer = (
    CacheMessage | Room | DatasetMessage | StreamMessage | Mask | Drop | Lease | Revoke | Drain
)
OverAttach = AttachMessage | Arena | Piece
FromRelay = AttachMessage | Done | Dropped | Fail | Alive | LastWords | Beat | Ended
ToRelay = DatasetMessage | StreamMessage | Mask | Drop | Lease | Revoke | Drain | Kill | Part

__all__ = [
    "PROTOCOL_VERSION",
    "Alive",
    "Arena",
    "ArraySpec",
    "AttachMessage",
    "BadRow",
    "BatchMessage",
    "Beat",
    "Bye",
    "CacheEntry",
    "CacheMessage",
    "Cached",
    "Chosen",
    "Count",
    "DatasetMessage",
    "Detached",
    "Digest",
    "Done",
    "Drain",
    "Drop",
    "Dropped",
    "Ended",
    "Epoch",
    "EpochEnd",
    "Error",
    "Fail",
    "Flow",
    "Fraction",
    "FromClient",
    "FromProducer",
    "FromRelay",
    "Hello",
    "Join",
    "Joined",
    "Kill",
    "LastWords",
    "Layout",
    "Lease",
    "Mask",
    "Message",
    "Name",
    "Notice",
    "Open",
    "Opened",
    "OverAttach",
    "Part",
    "Path",
    "Paths",
    "PathsReply",
    "PhaseArrays",
    "Piece",
    "Ping",
    "Pong",
    "Quarantine",
    "Quarantined",
    "QuarantinedMessage",
    "Ready",
    "Release",
    "Repeats",
    "Revoke",
    "Room",
    "Seed",
    "Selection",
    "Share",
    "Small",
    "Spec",
    "Status",
    "StatusReply",
    "StreamMessage",
    "Sum",
    "Text",
    "ToClient",
    "ToProducer",
    "ToRelay",
    "Trouble",
    "Welcome",
]
