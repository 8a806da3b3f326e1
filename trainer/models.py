"""torchvision's networks by name, with a head for the classes at hand.

Where it stands: once, before the first step. The only module that knows torchvision, which it
loads when a network is built. Nothing here downloads: networks start from random weights, drawn
from torch's generator as the caller seeded it.
"""

from __future__ import annotations

from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import augd

# These two give a second output in training, for a loss that only their paper's schedule uses.
_WITH_SECOND_HEAD = ("googlenet", "inception_v3")


def check_arch(arch: str) -> None:
    """Look whether there is such a network, before anything is started for it.

    Raises:
        OptionError: torchvision is missing, or has no such classifier.
    """
    models = _torchvision_models()
    known = models.list_models(module=models)
    if arch not in known:
        close = get_close_matches(arch.lower(), known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}."
        raise augd.OptionError(f"--arch: torchvision has no classifier {arch!r}; {hint}")


def build_model(arch: str, num_classes: int, size_px: tuple[int, int] | None = None) -> nn.Module:
    """Build an untrained network; `size_px` (height, width) is for those that fix it.

    Raises:
        OptionError: as `check_arch` says, or the network takes square images only.
    """
    check_arch(arch)
    models = _torchvision_models()
    special: dict[str, Any] = {}
    if arch in _WITH_SECOND_HEAD:
        special = {"aux_logits": False, "init_weights": True}
    elif arch.startswith("vit_") and size_px is not None:
        special = {"image_size": _square(arch, size_px)}
    network: nn.Module = models.get_model(arch, weights=None, num_classes=num_classes, **special)
    return network


def check_input(network: nn.Module, arch: str, images: Tensor) -> None:
    """Pass one image of a batch through, so that a size that doesn't fit is said plainly.

    Leaves the network, its buffers and the random state as they were.

    Raises:
        OptionError: the network cannot take images of this size.
    """
    was_training = network.training
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
        network.train(was_training)


def _square(arch: str, size_px: tuple[int, int]) -> int:
    height, width = size_px
    if height != width:
        raise augd.OptionError(f"--arch: {arch} takes square images, got {height} x {width} px")
    return height


def _torchvision_models() -> ModuleType:
    try:
        import torchvision.models  # type: ignore[import-untyped]
    except ImportError as error:
        raise augd.OptionError(
            f"--arch: networks come from torchvision, which cannot be loaded ({error}). "
            "Install it: pip install 'augd[trainer]'."
        ) from None
    models: ModuleType = torchvision.models
    return models
