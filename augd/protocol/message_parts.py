"""The base of all messages, their bounded types, and the parts that several messages contain.

Both sides decode with these bounds, before anything acts on a message
(augd/protocol/messages.py). Pure declarations: nothing here opens, waits or allocates.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from augd.plan.order.repeat_option import ONCE, Repeats
from augd.plan.order.shuffle_option import Shuffle
from augd.protocol.limits import QUARANTINE_MAX

# Bounds that a decoder enforces before anything acts on a message.
Count = Annotated[int, Meta(ge=0, le=2**62)]
Epoch = Annotated[int, Meta(ge=0, le=2**31 - 1)]  # 32 bits of the random counter
Small = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=16_384)]
Digest = Annotated[str, Meta(max_length=64)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Path = Annotated[bytes, Meta(max_length=2**16)]
Sum = Annotated[bytes, Meta(max_length=16)]  # a sum of digests: little-endian, 8 or 16 bytes
# (sample, epoch, position): the sample is masked from that place of the epoch's order on.
Quarantined = tuple[Count, Epoch, Count]
Quarantine = Annotated[tuple[Quarantined, ...], Meta(max_length=QUARANTINE_MAX)]


class Message(Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all messages; the tag is the upper-case name of protocol.md."""


class ArraySpec(Struct, frozen=True):
    """One array of a slot: `offset` is in bytes from the slot's start."""

    name: Name
    dtype: Name
    shape: tuple[Small, ...]
    offset: Count


class PhaseArrays(Struct, frozen=True):
    """The arrays of a slot from an epoch on: those of a phase whose rows have another shape."""

    from_epoch: Epoch
    arrays: tuple[ArraySpec, ...]


class Layout(Struct, frozen=True):
    """How an epoch is cut into batches. A resume may change it; content does not depend on it."""

    batch_size: Annotated[int, Meta(ge=1, le=2**24)]
    rank: Small = 0
    world: Annotated[int, Meta(ge=1, le=2**20)] = 1
    drop_last: bool = False


class Selection(Struct, frozen=True, omit_defaults=True):
    """Which samples of the dataset an epoch consists of; by default all.

    `split` uses the splits that the dataset records, or else `val_fraction` of a hash of the paths.
    `classes` keeps only these and numbers them in this order, `limit` keeps at most so many, and
    `balance` draws all classes in equal numbers.
    """

    split: Literal["train", "val", "test"] | None = None
    val_fraction: Fraction = 0.1
    classes: tuple[Name, ...] | None = None
    limit: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    balance: Literal["class"] | None = None


class Chosen(Struct, frozen=True):
    """The shape of a list of selected samples.

    `num_groups` counts the classes with samples when the draws are balanced. `num_picked` counts
    the classes that were named. Otherwise they are 0.
    """

    num_samples: Count
    num_groups: Small = 0
    num_picked: Small = 0


class Spec(Struct, frozen=True, omit_defaults=True):
    """What a client asks for: plain data, validated again by the daemon."""

    dataset: Name | None
    recipe: dict[str, Any]
    layout: Layout
    seed: Seed = 0
    shuffle: Shuffle = True
    bad: Literal["mask", "fail"] = "mask"
    max_bad_fraction: Fraction = 0.01
    prefetch: Annotated[int, Meta(ge=1, le=1024)] = 4
    selection: Selection = Selection()
    params: bool = False
    repeats: Repeats = ONCE


class Share(Struct, frozen=True, omit_defaults=True):
    """How a client shares one stream with other clients that ask for the same.

    `at` "next" joins a running stream at its next batch. "here" joins only a stream that still has
    the batch at the place asked for. If there is none to join, one begins at that place. It waits
    until `sharers` clients have joined, at most `wait_s`. `max_lag` is how many batches this client
    may be behind the fastest one before it is detached; without it the others wait.
    """

    at: Literal["next", "here"] = "next"
    sharers: Annotated[int, Meta(ge=1, le=1024)] = 1
    wait_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 0.0
    max_lag: Annotated[int, Meta(ge=0, le=1024)] | None = None


class BadRow(Struct, frozen=True):
    """One masked row: the sample's id and why."""

    sample: int
    path: Text
    reason: Text


class CacheEntry(Struct, frozen=True, omit_defaults=True):
    """A complete decoded image in the cache, from byte `offset` on, as it is stored.

    `orientation` is EXIF's. `digest` is xxh3-64 of the pixels if the cache outlives its daemon.
    `replaces` says that the earlier image of this sample was found damaged.
    """

    sample: Count
    offset: Count
    width: Small
    height: Small
    orientation: Annotated[int, Meta(ge=1, le=8)] = 1
    digest: Sum = b""
    replaces: bool = False
