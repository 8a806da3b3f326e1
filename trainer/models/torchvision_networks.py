"""Networks of torchvision, by their names there (`--arch NAME`), and `small-convnet`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from torch import nn

import augd

from .network_source import Built, load_library
from .small_convnet import SIDE_PX as SMALL_SIDE_PX
from .small_convnet import SmallConvNet

SMALL_CONVNET = "small-convnet"

# These two give a second output in training, for a loss that only their paper's schedule uses.
# Their published weights want another normalisation, which `transform_input` makes of ours.
_WITH_SECOND_HEAD = ("googlenet", "inception_v3")
# What torchvision's networks were designed for: stages are the same whatever the images' size.
_SIDE_PX = 224


def torchvision_models() -> Any:
    """Load torchvision's models.

    Raises:
        OptionError: it is not installed, or broken.
    """
    return load_library("torchvision.models", "trainer")


def check(arch: str) -> None:
    """Check that there is such a network.

    Raises:
        OptionError: torchvision is missing, or has no such classifier.
    """
    if arch == SMALL_CONVNET:
        return
    models = torchvision_models()
    known = [*models.list_models(module=models), SMALL_CONVNET]
    if arch not in known:
        close = get_close_matches(arch.lower(), known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}."
        raise augd.OptionError(f"--arch: torchvision has no classifier {arch!r}; {hint}")


def build(arch: str, num_classes: int, size_px: tuple[int, int] | None) -> Built:
    """Build a network of random weights; `size_px` is for those that fix it.

    Raises:
        OptionError: as `check` says, or the size is none for this network.
    """
    check(arch)
    has_fixed_size = arch.startswith((SMALL_CONVNET, "vit_", "maxvit_"))
    side_px = SMALL_SIDE_PX if arch == SMALL_CONVNET else _SIDE_PX
    traced = size_px if has_fixed_size and size_px else (side_px, side_px)
    return Built(_network(arch, num_classes, size_px), sizes_px=(traced,))


def _network(arch: str, num_classes: int, size_px: tuple[int, int] | None) -> nn.Module:
    if arch == SMALL_CONVNET:
        return SmallConvNet(num_classes) if size_px is None else SmallConvNet(num_classes, size_px)
    special: dict[str, Any] = {}
    if arch in _WITH_SECOND_HEAD:
        special = {"aux_logits": False, "init_weights": True, "transform_input": True}
    elif arch.startswith("vit_") and size_px is not None:
        special = {"image_size": _square(arch, size_px)}
    elif arch.startswith("maxvit_") and size_px is not None:
        special = {"input_size": size_px}
    try:
        network: nn.Module = torchvision_models().get_model(
            arch, weights=None, num_classes=num_classes, **special
        )
    except ValueError as error:  # maxvit's windows must divide the size
        raise augd.OptionError(f"--arch: {arch}: {error}") from None
    return network


def _square(arch: str, size_px: tuple[int, int]) -> int:
    height, width = size_px
    if height != width:
        raise augd.OptionError(f"--arch: {arch} takes square images, got {height} x {width} px")
    return height
