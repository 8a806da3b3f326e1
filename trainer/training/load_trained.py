"""Loads a trained network from a checkpoint of `trainer fit`.

Used before evaluation, stored features and inspection, which change no weight. Averaged weights are
used if there are any: they are the ones that were validated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import augd

from ..data.constants import Constants, constants_of
from ..models.build_network import StagedNetwork, build_staged_network, is_own_code
from ..models.pretrained_weights import load_state
from .checkpoint import load_checkpoint


class Trained(NamedTuple):
    """A network in evaluation mode, and what it was trained for.

    Attributes:
        path: of its checkpoint.
        staged: the network, on the CPU, and its parts.
        classes: what it tells apart, by label.
        size_px: (height, width) of its images; None where they came as they are.
        validation: the recipe that it was validated with.
        val_fraction: share of the samples that it was validated with, where a hash decided.
        constants: what its images are normalised with.
        epoch: after how many epochs.
    """

    path: Path
    staged: StagedNetwork
    classes: list[str]
    size_px: tuple[int, int] | None
    validation: str | dict[str, Any]
    val_fraction: float
    constants: Constants
    epoch: int


def read_trained(path: Path, arch: str | None = None, option: str = "--checkpoint") -> Trained:
    """Read a checkpoint; a folder stands for the best.pt in it.

    Args:
        path: of the checkpoint.
        arch: the network, where the checkpoint's word for it is not enough: own code, which is
            never run on the word of a file, and a folder that was moved.
        option: which errors name.

    Raises:
        OptionError: there is none, or it is of another version, or of own code that was not named.
    """
    if path.is_dir():
        path = path / "best.pt"
    state = load_checkpoint(path, option)
    settings, recipes = state["settings"], state["recipes"]
    size_px = recipes["size_px"]
    size_px = None if size_px is None else (size_px[0], size_px[1])
    name = arch or settings["arch"]
    if arch is None and is_own_code(name):
        raise augd.OptionError(
            f"{option}: {path} is of a network of own code, {name}, which a file may not run: "
            f"say --arch '{name}' if that code is yours"
        )
    num_classes = len(settings["classes"])
    staged = build_staged_network(name, num_classes, size_px, head=settings.get("head"))
    load_state(staged, _weights_of(state), str(path), option)
    staged.network.eval().requires_grad_(False)
    return Trained(
        path=path,
        staged=staged,
        classes=list(settings["classes"]),
        size_px=size_px,
        validation=recipes["validation"],
        val_fraction=settings["val_fraction"],
        constants=constants_of(settings),
        epoch=len(state["history"]),
    )


def _weights_of(state: Mapping[str, Any]) -> dict[str, Any]:
    weights: dict[str, Any] = state["model"] if state["ema"] is None else state["ema"]
    return weights


def check_ensemble(trained: list[Trained]) -> None:
    """Check that networks were trained for the same classes, image size and normalisation.

    Raises:
        OptionError: they were trained for other classes, or other images.
    """
    first = trained[0]
    for other in trained[1:]:
        for what, here, there in (
            ("the classes", first.classes, other.classes),
            ("images of (height, width)", first.size_px, other.size_px),
            ("images normalised with", tuple(first.constants), tuple(other.constants)),
        ):
            if here != there:
                raise augd.OptionError(
                    f"--checkpoint: {other.path} is for {what} {there}, {first.path} for {here}; "
                    "an ensemble needs the same of all"
                )
