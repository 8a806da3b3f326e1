"""Builds networks by name, with a head for the given classes, and finds their stages.

Used once per run, before the first step. A name says where the network comes from: torchvision,
timm, a folder of Hugging Face's, or code of one's own. Each has a module here, which loads its
library when it builds. Nothing here downloads. Networks have random weights, drawn from torch's
generator as the caller seeded it; `trainer.models.pretrained_weights` loads others.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import augd

from . import hugging_face_networks, own_networks, timm_networks, torchvision_networks
from .head import regularise_head, resize_head
from .network_source import Built
from .stages import Stages, find_stages


class StagedNetwork(NamedTuple):
    """A network of a known architecture, and its stages."""

    arch: str
    network: nn.Module
    stages: Stages


def _source_of(arch: str) -> ModuleType:
    for source in (timm_networks, hugging_face_networks):
        if arch.startswith(source.PREFIX):
            return source
    return own_networks if own_networks.is_own(arch) else torchvision_networks


def is_own_code(arch: str) -> bool:
    """Say whether building this network imports a module that the name says."""
    return _source_of(arch) is own_networks


def constants_of_weights(arch: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std that the published weights of a network want, where its source says."""
    found: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    if arch.startswith((timm_networks.PREFIX, hugging_face_networks.PREFIX)):
        found = _source_of(arch).constants(arch)
    return found


def check_arch(arch: str) -> None:
    """Check that there is such a network, before anything is started for it.

    Raises:
        OptionError: its library is missing, or has no such classifier.
    """
    _source_of(arch).check(arch)


def build_staged_network(
    arch: str,
    num_classes: int,
    size_px: tuple[int, int] | None = None,
    *,
    head: str | None = None,
    dropout: float | None = None,
    drop_connect: float = 0.0,
) -> StagedNetwork:
    """Build an untrained network and find its parts; `size_px` is (height, width).

    Args:
        arch: a classifier of torchvision's, "small-convnet", "timm:NAME", "hf:DIR" or
            "MODULE:CALLABLE?arg=value".
        num_classes: numbers that the head gives.
        size_px: of the images, for networks that fix it.
        head: name of the module that gives these numbers; None finds it.
        dropout: share of the head's inputs zeroed in training; None leaves what the network has.
        drop_connect: share of the head's weights zeroed in training.

    Raises:
        OptionError: as `check_arch` says, or the size or the head does not fit.
    """
    built: Built = _source_of(arch).build(arch, num_classes, size_px)
    heads = (head,) if head else built.heads
    return _staged(arch, built, heads, num_classes, dropout, drop_connect)


def stage_network(
    arch: str,
    network: nn.Module,
    num_classes: int,
    size_px: tuple[int, int] | None = None,
    *,
    head: str | None = None,
    dropout: float | None = None,
    drop_connect: float = 0.0,
) -> StagedNetwork:
    """Find the parts of a network that is there already; the other arguments as above.

    A head of another number of classes is replaced by a new one.

    Raises:
        OptionError: the size or the head does not fit.
    """
    heads = (head,) if head else timm_networks.heads_of(network)
    sizes = ((224, 224),) if size_px is None else (size_px, (224, 224))
    hugging_face_networks.give_logits(network)
    built = Built(network, heads, sizes, has_classes=False)
    return _staged(arch, built, heads, num_classes, dropout, drop_connect)


def _staged(
    arch: str,
    built: Built,
    heads: tuple[str, ...],
    num_classes: int,
    dropout: float | None,
    drop_connect: float,
) -> StagedNetwork:
    if not built.has_classes:
        stages = find_stages(built.network, *built.sizes_px, heads=heads)
        resize_head(built.network, stages, num_classes)
        heads = stages.heads
    stages = find_stages(built.network, *built.sizes_px, heads=heads, num_classes=num_classes)
    regularise_head(built.network, stages, dropout, drop_connect)
    return StagedNetwork(arch, built.network, stages)


def build_model(arch: str, num_classes: int, size_px: tuple[int, int] | None = None) -> nn.Module:
    """Build an untrained network; `size_px` (height, width) is for those that fix it.

    Raises:
        OptionError: as `check_arch` says, or the size is none for this network.
    """
    built: Built = _source_of(arch).build(arch, num_classes, size_px)
    return built.network


def check_input(
    network: nn.Module, arch: str, images: Tensor, *, is_of_phases: bool = False
) -> None:
    """Pass one image of a batch through, so that a size that doesn't fit is said plainly.

    Leaves the network, its buffers and the random state as they were. `is_of_phases` says that the
    recipe has phases of several sizes.

    Raises:
        OptionError: the network cannot take images of this size.
    """
    modes: dict[Any, bool] = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            network(images[:1])
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        height, width = images.shape[2:]
        reason = str(error).partition("\n")[0]
        advice = "Try another --size, or another network."
        if is_of_phases:
            advice = (
                "The recipe's phases have several sizes: choose a network that takes all of them, "
                "or give the phases one size."
            )
        raise augd.OptionError(
            f"--arch: {arch} cannot take images of {height} x {width} px ({reason}). {advice}"
        ) from None
    finally:
        for module, mode in modes.items():
            module.training = mode
