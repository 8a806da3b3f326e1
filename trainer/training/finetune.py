"""Transfer learning on one page: which stages of a network learn, how fast, and when.

A network that has learnt one task knows much that helps with the next one. Its first stages see
edges and colours, which every photo has. Its last ones see what that one task was about. Its head
tells that task's classes apart. So for other classes the head is new; weights of the same classes
keep theirs. The head learns in any case: the question is how much of the rest may change. The more
images there are, and the more they differ from the old ones, the more:

                   few images                          many images
    similar        head: the rest stays as it is       full: all learn, lower stages slower
    different      two-phase: the last stages are      full: all learn at the head's rate
                   retrained, once the head is ready

A strategy is nothing but a list of *phases*. A phase says for how many epochs which stages learn,
each at its own share of the learning rate. A stage without a share is *frozen*:

    scratch     every stage and the head: 1
    head        the head: 1
    partial     the head: 1, the last N stages: their shares
    full        the head: 1, every stage: its share
    two-phase   first as head; then the head and the last N stages, both at a low rate

Shares: 1/10 for the upper half of the stages and 1/100 for the lower half, since what a lower stage
knows is more general. Or a factor F from stage to stage downwards: F, F², F³, ... Or a factor from
layer to layer (`layer_decay`), as transformers are fine-tuned.

Frozen means frozen. A frozen stage gets no gradient. Whatever `network.train()` says, it works as
in evaluation: dropout rests, and BatchNorm neither uses nor updates a batch's statistics. A
BatchNorm in training mode would change its running mean with every batch, also at learning rate 0.
The features that the head has learnt to read would change with it. In stages that learn, BatchNorm
is frozen, too, unless there are many images: statistics of few would undo what was learnt. Layer
and group norms keep no statistics, and learn with their stage.

Norms and biases have no weight decay (He et al. 2019, Bag of Tricks, section 3.1).

Sources. The table: Stanford CS231n, notes on transfer learning. Sources differ in two places. For
few images that are different the notes put a linear classifier on an earlier stage. Chollet (Deep
Learning with Python, section 8.3.2) retrains the last stages after the head. That is done here,
because it keeps one network. For many similar images CS231n's slides retrain a few stages; its
notes retrain all of them, as here. Kornblith et al. 2019 (Do better ImageNet models transfer
better?) retrain all stages of twelve datasets. On nearly all, small ones included, that is better
than the head alone: when there is time, try `full` as well. Shares of the rate: Yosinski et al.
2014 (general and specific stages); Howard and Ruder 2018, section 3.2 (a factor from stage to
stage); Bao et al. 2022, BEiT (from layer to layer). Frozen BatchNorm: Chollet, section 8.3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple

from torch import nn
from torch.utils.hooks import RemovableHandle

import augd
from augd.errors import counted, verb

from ..models.stages import STATISTICS, Stages

Strategy = Literal["scratch", "head", "partial", "full", "two-phase", "auto"]
STRATEGIES: tuple[Strategy, ...] = ("scratch", "head", "partial", "full", "two-phase", "auto")

NORMS_CHOICES = ("auto", "frozen", "learn")

# Below so many images a dataset is called small. A convention: sources call Chollet's 2,000 cats
# and dogs small and CIFAR's 50,000 not, and give no number themselves.
MANY_IMAGES = 5_000
UPPER_SHARE, LOWER_SHARE = 1 / 10, 1 / 100


@dataclass(frozen=True, slots=True)
class Phase:
    """Epochs in which the same stages learn.

    Attributes:
        name: as a person sees it.
        epochs: how many.
        shares: of the learning rate, by the names of the stages that learn and of the head.
        freezes_norms: whether BatchNorm stays as it is, in learning stages, too.
        layer_decay: factor of the rate from layer to layer downwards; None is one rate a stage.
    """

    name: str
    epochs: int
    shares: Mapping[str, float]
    freezes_norms: bool = False
    layer_decay: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What fine-tuning was asked for.

    Attributes:
        strategy: any but "auto", which `choose_strategy` settles.
        epochs: of all phases together.
        head_epochs: of the first phase of "two-phase".
        unfreeze: how many of the last stages learn in "partial" and "two-phase".
        stage_share: factor from stage to stage downwards; None is 1/10 and 1/100 by halves.
        layer_decay: factor from layer to layer downwards, in "full" and "partial".
        freezes_norms: whether BatchNorm is frozen in stages that learn, but for "scratch".
        low_share: of the learning rate, for all that learns in phase two of "two-phase".
    """

    strategy: Strategy
    epochs: int
    head_epochs: int = 0
    unfreeze: int = 1
    stage_share: float | None = None
    layer_decay: float | None = None
    freezes_norms: bool = True
    low_share: float = 0.01


def plan_phases(plan: TrainingPlan, stages: Stages) -> list[Phase]:
    """Write a strategy down as phases.

    Raises:
        OptionError: more stages are to be unfrozen than there are.
    """
    names = [stage.name for stage in stages.stages]
    if plan.strategy in ("partial", "two-phase") and not 1 <= plan.unfreeze <= len(names):
        raise augd.OptionError(
            f"--unfreeze: expected 1..{len(names)}, the stages of this network "
            f"({', '.join(names)}), got {plan.unfreeze}"
        )
    last = names[-plan.unfreeze :]
    head = {stages.head: 1.0}
    shares = stage_shares(names, plan.stage_share)
    if plan.layer_decay is not None:
        shares = top_shares(stages, plan.layer_decay)
    still = plan.freezes_norms
    match plan.strategy:
        case "scratch":
            return [Phase("scratch", plan.epochs, dict.fromkeys(names, 1.0) | head)]
        case "head":
            return [Phase("head", plan.epochs, head)]
        case "partial":
            some = {name: shares[name] for name in last} | head
            return [Phase("partial", plan.epochs, some, still, plan.layer_decay)]
        case "full":
            return [Phase("full", plan.epochs, shares | head, still, plan.layer_decay)]
        case "two-phase":
            low = dict.fromkeys([*last, stages.head], plan.low_share)
            tuning = plan.epochs - plan.head_epochs
            return [
                Phase("head", plan.head_epochs, head),
                Phase("tuning", tuning, low, freezes_norms=still),
            ]
        case _:
            raise ValueError(f"choose_strategy settles {plan.strategy!r} first")


def stage_shares(names: list[str], factor: float | None) -> dict[str, float]:
    """Return each stage's share of the learning rate; `names` from the image to the head."""
    if factor is not None:
        return {name: factor ** (len(names) - place) for place, name in enumerate(names)}
    num_lower = (len(names) + 1) // 2
    return {
        name: LOWER_SHARE if place < num_lower else UPPER_SHARE for place, name in enumerate(names)
    }


class StrategyChoice(NamedTuple):
    """A strategy, the factor between stages if it decides that, too, and why."""

    strategy: Strategy
    stage_share: float | None
    why: str


def choose_strategy(num_images: int, *, is_similar: bool) -> StrategyChoice:
    """Choose by the four quadrants: few or many images, similar to the old ones or not."""
    is_many = num_images >= MANY_IMAGES
    size = "many" if is_many else "few"
    images = f"{counted(num_images, 'image')} {verb(num_images, 'is', 'are')}"
    amount = f"{images} {size} ({MANY_IMAGES:,} are many)"
    match is_many, is_similar:
        case False, True:
            reason = "few weights can be learnt from few images, and the old features fit: the head"
            return StrategyChoice("head", None, f"{amount}, and similar: {reason} alone")
        case False, False:
            reason = "the last stages know too much about the old images: they are retrained"
            return StrategyChoice(
                "two-phase", None, f"{amount}, and different: {reason} after the head"
            )
        case True, True:
            reason = "enough to train every stage without forgetting what is general"
            return StrategyChoice(
                "full", None, f"{amount}, and similar: {reason}, lower ones slower"
            )
        case _:
            reason = "the old weights are only where training begins"
            return StrategyChoice(
                "full", 1.0, f"{amount}, and different: {reason}; all at one rate"
            )


def freeze(network: nn.Module, stages: Stages, phase: Phase) -> RemovableHandle:
    """Freeze what does not learn in a phase, until the handle is removed.

    Sets `requires_grad` of every parameter. Frozen modules are put into evaluation mode now and
    before each pass through the network, so `network.train()` does not thaw them.
    """
    frozen = _frozen_modules(network, stages, phase)
    trained = {
        id(one) for group in parameter_groups(network, stages, phase) for one in group["params"]
    }
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in trained)

    def rest(*_: object) -> None:
        for module in frozen:
            module.eval()

    rest()
    return network.register_forward_pre_hook(rest)


def parameter_groups(network: nn.Module, stages: Stages, phase: Phase) -> list[dict[str, Any]]:
    """Return groups for an optimiser, from the image to the head.

    Each has "params" of one stage, or of one layer with `layer_decay`, its "name" and "share" of
    the rate, and "weight_decay" 0.0 where its parameters have none.
    """
    norms = _norms(network) if phase.freezes_norms else {}
    still = {id(one) for norm in norms.values() for one in norm.parameters()}
    parts = [
        (name, share, [(one, network.get_parameter(one)) for one in inside])
        for name, share, inside in _parts(network, stages, phase)
    ]
    without = undecayed(network)
    groups = []
    for name, share, inside in parts:
        for is_decayed in (True, False):
            learning = [
                parameter
                for one, parameter in inside
                if id(parameter) not in still and (one in without) is not is_decayed
            ]
            if learning:
                group = {"params": learning, "name": name, "share": share}
                groups.append(group if is_decayed else group | {"weight_decay": 0.0})
    return groups


def _parts(
    network: nn.Module, stages: Stages, phase: Phase
) -> Iterator[tuple[str, float, tuple[str, ...]]]:
    """Yield what learns at one rate: a name, a share, and the names of parameters."""
    by_layer = {} if phase.layer_decay is None else layer_shares(network, stages, phase.layer_decay)
    for stage in stages.stages:
        if stage.name not in phase.shares:
            continue
        if not by_layer:
            yield stage.name, phase.shares[stage.name], stage.parameters
            continue
        for (layer, share), inside in groupby(stage.parameters, lambda one: by_layer[one]):
            yield layer, share, tuple(inside)
    if stages.head in phase.shares:
        names = (name for name, _ in network.named_parameters())
        inside_head = tuple(name for name in names if stages.is_of_head(name))
        yield stages.head, phase.shares[stages.head], inside_head


def layer_shares(network: nn.Module, stages: Stages, factor: float) -> dict[str, tuple[str, float]]:
    """Return, for each parameter below the head, the layer that it belongs to, and its share.

    A layer is a module that the pass through the network met, blocks being one. Norms on their own
    belong to the layer before them, tokens and positions to the first.

    Source: Bao et al. 2022 (BEiT), as timm's `param_groups_layer_decay` has it.
    """
    layers = _layers(stages)
    of_parameter: dict[str, tuple[str, float]] = {}
    for number, modules in enumerate(layers):
        share = factor ** (len(layers) - number)
        for module in modules:
            of_parameter |= {
                f"{module}.{name}": (modules[0], share)
                for name, _ in network.get_submodule(module).named_parameters()
            }
    first = (layers[0][0], factor ** len(layers)) if layers else ("", 1.0)
    return {
        name: of_parameter.get(name, first) for stage in stages.stages for name in stage.parameters
    }


def top_shares(stages: Stages, factor: float) -> dict[str, float]:
    """Return each stage's largest share of the learning rate: that of its last layer."""
    layers = _layers(stages)
    return {
        stage.name: factor
        ** (
            len(layers)
            - max(number for number, one in enumerate(layers) if one[0] in stage.modules)
        )
        for stage in stages.stages
    }


def _layers(stages: Stages) -> list[list[str]]:
    """Return the modules of each layer, from the image on."""
    layers: list[list[str]] = []
    for stage in stages.stages:
        for module in stage.modules:
            if module in stage.blocks or not layers:
                layers.append([module])
            else:
                layers[-1].append(module)
    return layers


def undecayed(network: nn.Module) -> set[str]:
    """Return the names of parameters without weight decay: norms, biases, and what timm names."""
    ask = getattr(network, "no_weight_decay", None)
    named = set(ask()) if callable(ask) else set()
    return named | {name for name, one in network.named_parameters() if one.dim() <= 1}


def _frozen_modules(network: nn.Module, stages: Stages, phase: Phase) -> list[nn.Module]:
    frozen = [
        network.get_submodule(name)
        for stage in stages.stages
        if stage.name not in phase.shares
        for name in stage.modules
    ]
    return frozen + (list(_norms(network).values()) if phase.freezes_norms else [])


def _norms(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that keep statistics of batches, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, STATISTICS) and module.track_running_stats
    }
