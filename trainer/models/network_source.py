"""What the sources of networks have in common: torchvision, timm, Hugging Face, and own code."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch import nn

import augd
from augd.errors import install_extra


@dataclass(frozen=True, slots=True)
class Built:
    """An untrained network.

    Attributes:
        network: gives logits (B, K), or a record that has them, of images (B, 3, H, W).
        heads: names of its heads, where its source tells them.
        sizes_px: (height, width) of images that it takes, the best first.
        has_classes: whether it was built for the number of classes that was asked for.
    """

    network: nn.Module
    heads: tuple[str, ...] = ()
    sizes_px: tuple[tuple[int, int], ...] = field(default=((224, 224),))
    has_classes: bool = True


def load_library(name: str, extra: str) -> Any:
    """Import a library of networks.

    Raises:
        OptionError: it is not installed, or broken.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise augd.OptionError(
            f"--arch: this network comes from {name}, which cannot be loaded ({error}). "
            f"Install it: {install_extra(extra)}."
        ) from None


def name_of(network: nn.Module, module: object) -> str | None:
    """Return the name of a module within a network; None if it is not there."""
    return next((name for name, one in network.named_modules() if one is module), None)


def refused(arch: str, error: Exception) -> augd.OptionError:
    """Make an error of a source's own one."""
    reason = str(error).strip().partition("\n")[0] or "no reason given"
    return augd.OptionError(f"--arch: {arch}: {type(error).__name__}: {reason}")
