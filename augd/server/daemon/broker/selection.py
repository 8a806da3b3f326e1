"""What the broker must know of a selection: whether it is the whole dataset, and its content.

Used when a stream opens. The daemon selects the samples (augd/dataset/selection.py), since that
needs the index. Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from augd.plan.content import SELECTION_SCHEME
from augd.protocol.messages import Selection, Spec


def is_whole(selection: Selection) -> bool:
    """Say whether this is the whole dataset, in the order of its permutation."""
    asked = (selection.split, selection.classes, selection.limit, selection.balance)
    return all(part is None for part in asked)


def settled(selection: Selection, *, has_splits: bool) -> Selection:
    """Reset options without effect, so that equal selections compare equal."""
    if selection.split is None or has_splits:
        return structs.replace(selection, val_fraction=Selection().val_fraction)
    return selection


def policy_of(spec: Spec, *, has_splits: bool) -> dict[str, Any]:
    """Collect the policies that decide which samples come and what they look like."""
    policy: dict[str, Any] = {"bad": spec.bad}
    selection = settled(spec.selection, has_splits=has_splits)
    if not is_whole(selection):
        asked = {name: v for name, v in structs.asdict(selection).items() if v is not None}
        policy["selection"] = {**asked, "scheme": SELECTION_SCHEME}
    return policy
