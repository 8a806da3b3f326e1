"""The optimiser, and the learning rate of each step.

Where it stands: set before each step. The rate is a function of the step's number, so that nothing
has to remember it and a resumed run has the same.
"""

from __future__ import annotations

import math

import torch
from torch import nn

_MOMENTUM = 0.9


def make_optimiser(
    network: nn.Module, name: str, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Make "sgd", with momentum 0.9, or "adamw"."""
    weights = network.parameters()
    if name == "adamw":
        return torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay)
    return torch.optim.SGD(weights, lr=lr, momentum=_MOMENTUM, weight_decay=weight_decay)


def warm_cosine(step: int, num_warm: int, num_steps: int) -> float:
    """Return the share of the full rate: linear up to it, then half a cosine down to 0.

    Source: Goyal et al. 2017, §2.2 (warm-up); Loshchilov and Hutter 2017 (cosine).
    """
    if step < num_warm:
        return (step + 1) / (num_warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - num_warm) / max(1, num_steps - num_warm)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate
