"""Specs that nobody can serve, or only at a price."""

from __future__ import annotations

from typing import Any

import msgspec

from augd.protocol import messages as msg
from tests.attacks.catalogue import attack
from tests.attacks.sessions import session_of
from tests.attacks.target import Target, make_spec

CROP = {"op": "center_crop", "size": 8}


def answers_to(target: Target, spec: msg.Spec, times: int = 1) -> set[str]:
    """Open with this spec in a session of its own."""
    with session_of(target) as bomber:
        for _ in range(times):
            bomber.open(spec, credit=2)
        first = bomber.peer.hear()
        codes = {first.code if isinstance(first, msg.Error) else type(first).__name__}
        return codes | {name.removeprefix("ERROR ") for name in bomber.peer.answers()}


@attack("A30")
def arena_that_cannot_be_had(target: Target) -> None:
    """Ask for a batch_size of 2^24 images, and for 1,025 slots of large ones.

    Seen: OVER_LIMIT, which names both sums; the session ends; nothing was allocated.
    """
    large = {"ops": [{"op": "center_crop", "size": 2_000}]}
    specs = (
        make_spec(2**24, world=2),
        make_spec(2**24, world=2**20, prefetch=1024),
        make_spec(256, world=2, prefetch=1024, recipe=large),
        make_spec(2**24, world=2, prefetch=1024, recipe=large),
    )
    for spec in specs:
        assert answers_to(target, spec) == {"OVER_LIMIT"}


@attack("A31")
def recipe_bombs(target: Target) -> None:
    """Recipes of 5,000 ops, of 60 KiB of text, of absurd sizes and numbers, nested, and renamed.

    Seen: BAD_RECIPE or OVER_LIMIT, within the size of an ERROR.
    """
    deep: Any = 1
    for _ in range(200):
        deep = {"op": [deep]}
    recipes: tuple[dict[str, Any], ...] = (
        {"ops": [{"op": "mirror"}] * 5_000, "more": 1},
        {"ops": [CROP, *[{"op": "x" * 60_000}]]},
        {"ops": [{"op": "center_crop", "size": "x" * 60_000}]},
        {"ops": [{"x" * 60_000: 1}]},
        {"x" * 60_000: []},
        {"ops": {}, "filter": "linear"},
        {"ops": deep},
        {"ops": [deep]},
        {"ops": [{"op": "center_crop", "size": deep}]},
        {"ops": [CROP], "filter": deep},
        {"ops": [{"op": "mirror", "p": 1e308 * 10}, CROP]},
        {"ops": [{"op": "mirror", "p": float("nan")}, CROP]},
        {"ops": [{"op": "center_crop", "size": -(2**63)}]},
        {"ops": [{"op": "center_crop", "size": [0, 0]}]},
    )
    for recipe in recipes:
        assert answers_to(target, make_spec(recipe=recipe)) == {"BAD_RECIPE"}, recipe
    for size in (2**31 - 1, 2**62, 2**64 - 1):
        recipe = {"ops": [{"op": "center_crop", "size": size}]}
        assert answers_to(target, make_spec(recipe=recipe)) <= {"BAD_RECIPE", "OVER_LIMIT"}


@attack("A32")
def long_recipes(target: Target) -> None:
    """Recipes of as many legal ops as a header holds.

    Seen: they are served, or refused with a reason; the producers live.
    """
    before = target.status()["restarts"]
    for ops in ([{"op": "mirror"}] * 5_000, [{"op": "pca", "alpha_std": 0.1}] * 2_000):
        answers_to(target, make_spec(recipe={"ops": [CROP, *ops]}))
    assert target.status()["restarts"] == before


@attack("A33")
def selection_bombs(target: Target) -> None:
    """Select 8,000 classes that don't exist, one class 8,000 times, and nothing at all.

    Seen: refused with a reason.
    """
    selections = (
        msg.Selection(classes=tuple(f"c{n}" for n in range(8_000))),
        msg.Selection(classes=("x" * 256,) * 200),
        msg.Selection(classes=("class0",) * 8_000),
        msg.Selection(classes=()),
        msg.Selection(split="val", val_fraction=0.0),
    )
    for selection in selections:
        codes = answers_to(target, make_spec(selection=selection))
        assert codes <= {"BAD_OPTION", "UNKNOWN_DATASET", "BAD_DATASET"}, codes
    assert answers_to(target, make_spec(selection=msg.Selection(limit=2**62))) >= {"Opened"}


@attack("A34")
def impossible_layouts(target: Target) -> None:
    """Ranks beyond the world, worlds beyond the dataset, unknown datasets with paths as names.

    Seen: BAD_OPTION or UNKNOWN_DATASET.
    """
    for rank, world in ((1, 1), (2**31 - 1, 2**20)):
        assert answers_to(target, make_spec(rank=rank, world=world)) == {"BAD_OPTION"}
    alone = make_spec(2**20, world=2**20, drop_last=True)
    assert answers_to(target, alone) == {"BAD_OPTION"}
    for name in ("/etc/passwd", "../photos", "", "photos\0", "\x1b[2J"):
        spec = msgspec.structs.replace(make_spec(), dataset=name)
        assert answers_to(target, spec) == {"UNKNOWN_DATASET"}


@attack("A35")
def a_million_chunks(target: Target) -> None:
    """Open and seek in a stream of 65,536 images of one pixel by 65 slots: 133,000 chunks.

    Seen: nobody waits for it.
    """
    pixel = {"ops": [{"op": "center_crop", "size": 1}]}
    spec = make_spec(2**16, world=2, prefetch=64, recipe=pixel)
    with session_of(target) as bomber:
        for _ in range(5):
            bomber.open(spec, credit=2**62)
        while not isinstance(message := bomber.peer.hear(), msg.Opened) or message.opening < 5:
            pass
