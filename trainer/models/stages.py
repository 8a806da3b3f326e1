"""The parts of a network that fine-tuning tells apart: its stages, in order, and its head.

Used between building a network and choosing a strategy (`trainer.training.finetune`). A stage works
at one resolution: ResNet's `layer1` to `layer4`, VGG's blocks between two poolings, each block of a
transformer. Stages are found in a forward pass on the meta device. So one rule serves every
network, nothing is computed, and neither weights nor buffers change.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import groupby, takewhile

import torch
from torch import Tensor, nn

import augd

# Normalisations: on their own they are no stage, and some strategies leave them frozen.
NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LocalResponseNorm,
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Modules that follow each other.

    Attributes:
        name: what its modules' names begin with, or its first such name.
        modules: names of its modules, in the order in which they are passed, those without
            weights (poolings, dropouts) among them.
        parameters: names of all their parameters, and of those that stand beside them.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stages:
    """A network's stages from the image to the head, and the head.

    Attributes:
        stages: all but the head; every parameter is in exactly one of them, or in the head.
        head: name of the layer that gives a number per class.
        before_head: name of the `nn.Dropout` that stands right before the head, if one does.
        is_head_last: False where other layers follow it (SqueezeNet averages after its head).
    """

    stages: tuple[Stage, ...]
    head: str
    before_head: str | None
    is_head_last: bool


@dataclass(slots=True)
class _Unit:
    """A module that is not looked into, as the pass met it."""

    name: str
    module: nn.Module
    resolution: Hashable
    output: int  # its identity, while the pass lasts


def find_stages(network: nn.Module, size_px: tuple[int, int] = (224, 224)) -> Stages:
    """Find the stages and the head of a classifier, for images of (height, width).

    Raises:
        OptionError: images of this size don't pass, or no layer gives a number per class.
    """
    units, result = _watch(network, size_px)
    with_weights = [unit for unit in units if _has_weights(unit.module)]
    if not with_weights or not isinstance(with_weights[-1].module, nn.Linear | nn.Conv2d):
        found = type(with_weights[-1].module).__name__ if with_weights else "none"
        raise augd.OptionError(
            f"--arch: expected a classifier whose last layer with weights is linear, got {found}. "
            "Choose another network."
        )
    head = with_weights[-1]
    below = units[: units.index(head)]
    before = below[-1]
    return Stages(
        stages=tuple(_stages(network, below, head)),
        head=head.name,
        before_head=before.name if isinstance(before.module, nn.Dropout) else None,
        is_head_last=head.output == result,
    )


def _watch(network: nn.Module, size_px: tuple[int, int]) -> tuple[list[_Unit], int]:
    """Pass an image without content through, and note what it meets."""
    units: list[_Unit] = []
    seen: list[Tensor] = []  # kept, so that no identity is given twice

    def note(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and all(unit.module is not module for unit in units):
            seen.append(output)
            units.append(_Unit(name, module, _resolution(len(units), output), id(output)))

    handles = [
        module.register_forward_hook(
            lambda module, _, output, name=name: note(name, module, output)
        )
        for name, module in _units(network)
    ]
    held = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    hollow = {name: torch.empty_like(tensor, device="meta") for name, tensor in held.items()}
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            image = torch.empty(1, 3, *size_px, device="meta")
            result = torch.func.functional_call(network, hollow, (image,))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise augd.OptionError(
            f"--arch: {type(network).__name__} cannot take images of {size_px[0]} x {size_px[1]} "
            f"px ({reason}). Try another --size, or another network."
        ) from None
    finally:
        for module, mode in modes.items():
            module.training = mode
        for handle in handles:
            handle.remove()
    seen.append(result)
    return units, id(result)


def _units(module: nn.Module, above: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield what is no mere sequence of other modules: layers and residual blocks."""
    for name, child in module.named_children():
        path = f"{above}{name}"
        if _is_sequence(child):
            yield from _units(child, f"{path}.")
        else:
            yield path, child


def _is_sequence(module: nn.Module) -> bool:
    # torchvision's transformers keep their blocks in one that also adds the positions.
    return isinstance(module, nn.Sequential | nn.ModuleList) or type(module).__name__ == "Encoder"


def _resolution(number: int, output: Tensor) -> Hashable:
    """Return what modules of one stage have in common: the extent of their output."""
    if output.dim() == 4:
        return tuple(output.shape[2:])
    # Tokens keep their number through a transformer: there each block is a stage.
    return "vector" if output.dim() == 2 else number


def _stages(network: nn.Module, units: list[_Unit], head: _Unit) -> Iterator[Stage]:
    groups = [list(group) for _, group in groupby(units, lambda unit: unit.resolution)]
    joined: list[list[_Unit]] = []
    for group in groups:
        if joined and not any(
            _learns(unit.module) for unit in group
        ):  # norms and poolings on their own are no stage
            joined[-1] += group
        else:
            joined.append(group)
    owned = {f"{head.name}.{name}" for name, _ in head.module.named_parameters()}
    for unit in units:
        owned |= {f"{unit.name}.{name}" for name, _ in unit.module.named_parameters()}
    # Class tokens and positions belong to no module of their own: they enter at the beginning.
    beside = [name for name, _ in network.named_parameters() if name not in owned]
    for group, title in zip(joined, _titles(joined), strict=True):
        inside = [
            f"{unit.name}.{name}" for unit in group for name, _ in unit.module.named_parameters()
        ]
        yield Stage(title, tuple(unit.name for unit in group), (*beside, *inside))
        beside = []


def _titles(groups: list[list[_Unit]]) -> list[str]:
    """Name stages as short as can be: "layer4" where nothing else is in layer4."""
    names = [[unit.name for unit in group if _learns(unit.module)] for group in groups]
    shared = [_common(group) for group in names]
    return [
        short if short and shared.count(short) == 1 else group[0]
        for short, group in zip(shared, names, strict=True)
    ]


def _learns(module: nn.Module) -> bool:
    return _has_weights(module) and not isinstance(module, NORMS)


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _common(names: list[str]) -> str:
    parts = zip(*(name.split(".") for name in names), strict=False)
    same = takewhile(lambda column: len(set(column)) == 1, parts)
    return ".".join(column[0] for column in same)
