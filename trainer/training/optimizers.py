"""Optimisers, and the learning rate of each step.

The rate is set before each step. It is a function of the step's number, so it needs no saved state,
and a resumed run has the same rates. A group's rate is its share of it. The schedulers of torch are
not used: they keep state, and their rates differ from these in the last bits.
"""

from __future__ import annotations

import math
from typing import Any

import torch

OPTIMISERS = ("sgd", "adamw", "rmsprop")
SCHEDULES = ("cosine", "constant")

_MOMENTUM = 0.9
# Keras' RMSprop, for which Chollet's rates were published; torch's own defaults are .99 and 1e-8.
_RMS_DECAY, _RMS_EPSILON = 0.9, 1e-7


def make_optimiser(
    groups: list[dict[str, Any]], name: str, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Make "sgd" (momentum 0.9), "adamw" or "rmsprop" for groups of parameters.

    Source: Loshchilov and Hutter 2019 (AdamW); Hinton 2012, Coursera lecture 6e (RMSprop).
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)
    if name == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=lr, alpha=_RMS_DECAY, eps=_RMS_EPSILON, weight_decay=weight_decay
        )
    return torch.optim.SGD(groups, lr=lr, momentum=_MOMENTUM, weight_decay=weight_decay)


def share_of_rate(schedule: str, step: int, num_warm: int, num_steps: int) -> float:
    """Return the share of the full rate at a step of a phase, 0..1: "cosine" or "constant"."""
    if schedule == "constant":
        return min(1.0, (step + 1) / (num_warm + 1))
    return warm_cosine(step, num_warm, num_steps)


def warm_cosine(step: int, num_warm: int, num_steps: int) -> float:
    """Return the share of the full rate: linear up to it, then half a cosine down to 0.

    Source: Goyal et al. 2017, §2.2 (warm-up); Loshchilov and Hutter 2017 (cosine).
    """
    if step < num_warm:
        return (step + 1) / (num_warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - num_warm) / max(1, num_steps - num_warm)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group: its share of the rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]
