"""The content of a stream: everything that decides a sample's pixels and their order.

The daemon computes it when a stream opens. The client keeps it in its state, and a resume compares
the two. Equal content means byte-identical batches, for any number of producers, any host and any
batch size.

Invariants: two contents have equal digests exactly if their fields are equal. Nothing of the layout
(batch size, rank, world) and nothing of the run (producers, transport) is in it. Never reads a
file, and never imports NumPy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import count, takewhile, zip_longest
from types import MappingProxyType
from typing import Any, Final

from augd.plan.order.repeat_option import ONCE, Repeats
from augd.plan.order.shuffle_option import Blocks, Shuffle

# Raise one when the numbers it stands for change, so that a resume is rejected by name.
RNG_SCHEME = "philox4x32-10/1"
ORDER_SCHEME = "feistel8/1"
BLOCKS_SCHEME = "windows of blocks, feistel8 of both/1"
PLAN_SCHEME = "plan/1"
SELECTION_SCHEME = "xxh3-128 of paths, philox within classes/1"

DIGEST_SIZE_BYTES = 16
_OP: Final = re.compile(r"recipe\.ops\[([0-9]+)\]")


class Content:
    """An ordered mapping of field names to JSON text, with a digest over both.

    The fields are flat: nested mappings become dotted names, so that a difference can be named.
    """

    __slots__ = ("digest", "fields")

    digest: str
    fields: Mapping[str, str]

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = MappingProxyType(dict(sorted(fields.items())))
        text = json.dumps(list(self.fields.items()), ensure_ascii=True, separators=(",", ":"))
        self.digest = hashlib.blake2b(text.encode(), digest_size=DIGEST_SIZE_BYTES).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Content({self.digest})"


def content_of(
    *,
    dataset_digest: str,
    recipe: Mapping[str, Any],
    seed: int,
    shuffle: Shuffle,
    policy: Mapping[str, Any],
    environment: Mapping[str, str],
    repeats: Repeats = ONCE,
) -> Content:
    """Collect the content of a stream.

    `recipe` is the expanded one (`recipe.expand`). `policy` is what else decides pixels (bad
    samples, decoding, split). `environment` are versions and hashes by name: decoder, kernels,
    plug-ins. Values are JSON data with finite numbers. Raises ValueError or TypeError on others.
    """
    is_in_blocks = isinstance(shuffle, Blocks)
    nested = {
        "dataset": dataset_digest,
        "recipe": recipe,
        "seed": seed,
        "shuffle": str(shuffle) if is_in_blocks else shuffle,
        "policy": policy,
        "environment": environment,
        "rng": RNG_SCHEME,
        "order": BLOCKS_SCHEME if is_in_blocks else ORDER_SCHEME,
        "plan": PLAN_SCHEME,
    }
    if repeats != ONCE:  # contents that were computed before stay equal
        nested["repeats"] = str(repeats)
    return Content(dict(_flatten("", nested)))


def differences(a: Content, b: Content, wording: str = "{name}: {a} against {b}") -> list[str]:
    """Name each field that differs, with both values; empty if the contents are equal.

    If the ops differ, the first op that differs is named, and what differs before it. What follows
    is shifted, and tells nothing.
    """
    ops = zip_longest(_ops_of(a), _ops_of(b), fillvalue="absent")
    moved = next((number for number, (one, two) in enumerate(ops) if one != two), None)
    said = []
    for name in sorted(a.fields.keys() | b.fields.keys(), key=_in_order):
        if a.fields.get(name) == b.fields.get(name):
            continue
        number = _number_of_op(name)
        if moved is None or number < moved or name == f"recipe.ops[{moved}].op":
            values = {"a": a.fields.get(name, "absent"), "b": b.fields.get(name, "absent")}
            said.append(wording.format(name=_with_op(name, number, a), **values))
    return said


def _ops_of(content: Content) -> list[str]:
    """Name a recipe's ops in their order."""
    names = (content.fields.get(f"recipe.ops[{number}].op") for number in count())
    return list(takewhile(bool, names))  # type: ignore[arg-type]


def _number_of_op(name: str) -> int:
    """Return which op of a recipe a field is of; -1 for others."""
    found = _OP.match(name)
    return int(found[1]) if found else -1


def _in_order(name: str) -> tuple[str, int, str]:
    number = _number_of_op(name)
    return ("recipe.ops" if number >= 0 else name), number, name


def _with_op(name: str, number: int, content: Content) -> str:
    """Name an op beside its parameter."""
    op = content.fields.get(f"recipe.ops[{number}].op")
    return name if op is None or name.endswith("].op") else f"{name} ({json.loads(op)})"


def _flatten(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else str(key), item)
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _flatten(f"{prefix}[{number}]", item)
    else:
        yield prefix, json.dumps(value, allow_nan=False, separators=(",", ":"))
