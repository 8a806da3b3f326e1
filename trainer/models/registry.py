"""Builds networks by name, with a head for the given classes, and finds their stages.

Used once per run, before the first step. The only module that builds torchvision's networks; it
loads torchvision when it does. Nothing here downloads. Networks have random weights, drawn from
torch's generator as the caller seeded it; `trainer.models.pretrained_weights` loads others.
"""

from __future__ import annotations

from difflib import get_close_matches
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import augd
from augd.errors import install_extra

from .head import regularise_head
from .small_convnet import SIDE_PX as SMALL_SIDE_PX
from .small_convnet import SmallConvNet
from .stages import Stages, find_stages

SMALL_CONVNET = "small-convnet"

# These two give a second output in training, for a loss that only their paper's schedule uses.
# Their published weights want another normalisation, which `transform_input` makes of ours.
_WITH_SECOND_HEAD = ("googlenet", "inception_v3")
# What torchvision's networks were designed for: stages are the same whatever the images' size.
_SIDE_PX = 224


class StagedNetwork(NamedTuple):
    """A network of a known architecture, and its stages."""

    arch: str
    network: nn.Module
    stages: Stages


def check_arch(arch: str) -> None:
    """Check that there is such a network, before anything is started for it.

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


def build_staged_network(
    arch: str,
    num_classes: int,
    size_px: tuple[int, int] | None = None,
    *,
    dropout: float | None = None,
    drop_connect: float = 0.0,
) -> StagedNetwork:
    """Build an untrained network and find its parts; `size_px` is (height, width).

    Args:
        arch: a classifier of torchvision's, or "small-convnet".
        num_classes: numbers that the head gives.
        size_px: of the images, for networks that fix it.
        dropout: share of the head's inputs zeroed in training; None leaves what the network has.
        drop_connect: share of the head's weights zeroed in training.

    Raises:
        OptionError: as `check_arch` says, or the size or the head does not fit.
    """
    network = build_model(arch, num_classes, size_px)
    side_px = SMALL_SIDE_PX if arch == SMALL_CONVNET else _SIDE_PX
    has_fixed_size = size_px is not None and arch.startswith((SMALL_CONVNET, "vit_", "maxvit_"))
    stages = find_stages(network, size_px if has_fixed_size and size_px else (side_px, side_px))
    regularise_head(network, stages, dropout, drop_connect)
    return StagedNetwork(arch, network, stages)


def build_model(arch: str, num_classes: int, size_px: tuple[int, int] | None = None) -> nn.Module:
    """Build an untrained network; `size_px` (height, width) is for those that fix it.

    Raises:
        OptionError: as `check_arch` says, or the size is none for this network.
    """
    check_arch(arch)
    if arch == SMALL_CONVNET:
        return SmallConvNet(num_classes) if size_px is None else SmallConvNet(num_classes, size_px)
    models = torchvision_models()
    special: dict[str, Any] = {}
    if arch in _WITH_SECOND_HEAD:
        special = {"aux_logits": False, "init_weights": True, "transform_input": True}
    elif arch.startswith("vit_") and size_px is not None:
        special = {"image_size": _square(arch, size_px)}
    elif arch.startswith("maxvit_") and size_px is not None:
        special = {"input_size": size_px}
    try:
        network: nn.Module = models.get_model(
            arch, weights=None, num_classes=num_classes, **special
        )
    except ValueError as error:  # maxvit's windows must divide the size
        raise augd.OptionError(f"--arch: {arch}: {error}") from None
    return network


def check_input(network: nn.Module, arch: str, images: Tensor) -> None:
    """Pass one image of a batch through, so that a size that doesn't fit is said plainly.

    Leaves the network, its buffers and the random state as they were.

    Raises:
        OptionError: the network cannot take images of this size.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            network(images[:1])
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        height, width = images.shape[2:]
        reason = str(error).partition("\n")[0]
        raise augd.OptionError(
            f"--arch: {arch} cannot take images of {height} x {width} px ({reason}). "
            "Try another --size, or another network."
        ) from None
    finally:
        for module, mode in modes.items():
            module.training = mode


def _square(arch: str, size_px: tuple[int, int]) -> int:
    height, width = size_px
    if height != width:
        raise augd.OptionError(f"--arch: {arch} takes square images, got {height} x {width} px")
    return height


def torchvision_models() -> ModuleType:
    """Load torchvision's models.

    Raises:
        OptionError: it is not installed, or broken.
    """
    try:
        import torchvision.models  # type: ignore[import-untyped]
    except ImportError as error:
        raise augd.OptionError(
            f"--arch: networks come from torchvision, which cannot be loaded ({error}). "
            f"Install it: {install_extra('trainer')}."
        ) from None
    models: ModuleType = torchvision.models
    return models
