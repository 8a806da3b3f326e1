"""The parts of a network that fine-tuning tells apart: its stages, in order, and its head.

Used between building a network and choosing a strategy (`trainer.training.finetune`). A stage works
at one resolution: ResNet's `layer1` to `layer4`, VGG's blocks between two poolings, each block of a
transformer. Stages and head are found in a forward pass without content (`trainer.models.trace`),
so one rule serves every network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from torch import nn

import augd

from .trace import Trace, Unit, trace

# Normalisations that keep statistics of batches, which strategies may leave frozen.
STATISTICS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
# All of them: on their own they are no stage.
NORMS = (*STATISTICS, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
_NAMED_MAX = 12


@dataclass(frozen=True, slots=True)
class Stage:
    """Modules that follow each other.

    Attributes:
        name: what its modules' names begin with, or its first such name.
        modules: names of its modules, in the order in which they are passed, those without
            weights (poolings, dropouts) among them.
        parameters: names of all their parameters, and of those that stand beside them.
        blocks: the modules with weights that are no mere normalisations.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stages:
    """A network's stages from the image to the head, and the head.

    Attributes:
        stages: all but the head; every parameter is in exactly one of them, or in a head.
        heads: names of the modules that give a number per class: usually one layer; a distilled
            transformer has two, whose numbers it averages.
        before_head: name of the `nn.Dropout` that stands right before the head, if one does.
        is_head_last: False where other layers follow it (SqueezeNet averages after its head).
    """

    stages: tuple[Stage, ...]
    heads: tuple[str, ...]
    before_head: str | None
    is_head_last: bool

    @property
    def head(self) -> str:
        """The head, or the first one of several."""
        return self.heads[0]

    def is_of_head(self, name: str) -> bool:
        """Say whether a tensor of the network's state belongs to a head."""
        return name.startswith(tuple(f"{head}." for head in self.heads))


def find_stages(
    network: nn.Module,
    *sizes_px: tuple[int, int],
    heads: Sequence[str] = (),
    num_classes: int | None = None,
) -> Stages:
    """Find the stages and the head of a classifier.

    Args:
        network: gives logits (B, K) of images (B, 3, H, W).
        sizes_px: (height, width) to try in turn, as some networks take one size only.
        heads: names of the heads; empty finds the head.
        num_classes: K as it should be; None takes any.

    Raises:
        OptionError: images of no size pass, there is no head, or K is another number.
    """
    for name in heads:
        _check_named(network, name)
    found = trace(network, sizes_px or ((224, 224),), heads)
    if num_classes is not None and found.shape[1:] != (num_classes,):
        raise augd.OptionError(
            f"--arch: {type(network).__name__} gives {_shape(found)} per image, expected "
            f"{num_classes} numbers, one per class"
        )
    heads = tuple(heads) or (_find_head(network, found),)
    if heads[0] not in [unit.name for unit in found.units]:  # it lies inside of a unit
        found = trace(network, sizes_px or ((224, 224),), heads)
    return _divide(network, found, tuple(heads))


def _check_named(network: nn.Module, name: str) -> None:
    modules = dict(network.named_modules())
    if name and name in modules and _has_weights(modules[name]):
        return
    raise augd.OptionError(
        f"--head: {type(network).__name__} has no layer {name!r} with weights; {_choice(network)}"
    )


def _find_head(network: nn.Module, found: Trace) -> str:
    """Return the last layer with weights, if it gives the network's numbers."""
    last = found.leaves[-1] if found.leaves else None
    if last is not None:
        layer = network.get_submodule(last)
        num_outputs = getattr(layer, "out_features", getattr(layer, "out_channels", None))
        is_linear = isinstance(layer, nn.Linear | nn.Conv2d)
        if is_linear and len(found.shape) == 2 and num_outputs == found.shape[1]:
            return last
    kind = "none" if last is None else f"{last} ({type(network.get_submodule(last)).__name__})"
    raise augd.OptionError(
        f"--head: the last layer with weights of {type(network).__name__} is {kind}, expected a "
        f"linear one that gives {_shape(found)}; {_choice(network)}"
    )


def _shape(found: Trace) -> str:
    return f"{' x '.join(map(str, found.shape[1:])) or 'no'} numbers"


def _choice(network: nn.Module) -> str:
    """Name what a head could be: the last layers, where heads are."""
    names = [
        name for name, one in network.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)
    ]
    shown = ", ".join(names[-_NAMED_MAX:]) or "it has no linear layer"
    more = f" (the last {_NAMED_MAX} of {len(names)} layers)" if len(names) > _NAMED_MAX else ""
    return f"name the head by --head, one of {shown}{more}"


def _divide(network: nn.Module, found: Trace, heads: tuple[str, ...]) -> Stages:
    of_head = [unit for unit in found.units if unit.name in heads]
    if not of_head:
        raise augd.OptionError(
            f"--head: {type(network).__name__} does not pass {', '.join(heads)} on its way to the "
            f"logits; {_choice(network)}"
        )
    first = min(found.units.index(unit) for unit in of_head)
    below = found.units[:first]
    after = [
        unit.name
        for unit in found.units[first:]
        if unit.name not in heads and _has_weights(unit.module)
    ]
    if after:
        raise augd.OptionError(
            f"--head: after {heads[0]} come layers with weights ({', '.join(after[:4])}): name the "
            f"last layer, or a module that holds them all"
        )
    before = below[-1] if below else None
    return Stages(
        stages=tuple(_stages(network, below, heads)),
        heads=heads,
        before_head=before.name if before and isinstance(before.module, nn.Dropout) else None,
        is_head_last=len(heads) == 1 and of_head[-1].output == found.result,
    )


def _stages(network: nn.Module, units: list[Unit], heads: tuple[str, ...]) -> Iterator[Stage]:
    joined: list[list[Unit]] = []
    beginning: list[Unit] = []  # what comes before the first weights
    for _, members in groupby(units, lambda unit: unit.resolution):
        group = list(members)
        if any(_learns(unit.module) for unit in group):
            joined.append(beginning + group)
            beginning = []
        elif joined:  # norms and poolings on their own are no stage
            joined[-1] += group
        else:
            beginning += group
    # By its own name, once: modules that a network holds twice have two names.
    names = {id(one): name for name, one in network.named_parameters()}
    for head in heads:
        for one in network.get_submodule(head).parameters():
            names.pop(id(one), None)
    inside = [
        [
            names.pop(id(one))
            for unit in group
            for one in unit.module.parameters()
            if id(one) in names
        ]
        for group in joined
    ]
    # Class tokens and positions belong to no module of their own: they enter at the beginning.
    beside = list(names.values())
    for group, parameters, title in zip(joined, inside, _titles(joined), strict=True):
        blocks = tuple(unit.name for unit in group if _learns(unit.module))
        yield Stage(title, tuple(unit.name for unit in group), (*beside, *parameters), blocks)
        beside = []


def _titles(groups: list[list[Unit]]) -> list[str]:
    """Name stages as short as can be: "layer4" where nothing else is in layer4."""
    names = [[unit.name for unit in group if _learns(unit.module)] for group in groups]
    titles = []
    for number, group in enumerate(names):
        short = _common(group)
        others = [name for other, part in enumerate(names) if other != number for name in part]
        is_own = short and not any(f"{name}.".startswith(f"{short}.") for name in others)
        titles.append(short if is_own else group[0])
    return titles


def _learns(module: nn.Module) -> bool:
    return _has_weights(module) and not isinstance(module, NORMS)


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _common(names: list[str]) -> str:
    parts = zip(*(name.split(".") for name in names), strict=False)
    same = takewhile(lambda column: len(set(column)) == 1, parts)
    return ".".join(column[0] for column in same)
