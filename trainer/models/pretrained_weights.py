"""Initial weights of a network: torchvision's by name, or a file.

Used between building a network and its first step. Tensors that don't fit are named in the error.
Only a head for other classes is replaced, with a message. This module alone may use the internet,
to download weights by name.

Invariant: no code of a file is run (`weights_only=True`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import augd

from .registry import SMALL_CONVNET, StagedNetwork, torchvision_models

_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
# What DistributedDataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")
# Second heads of googlenet and inception_v3, which are built without.
_SECOND_HEADS = ("aux1.", "aux2.", "AuxLogits.")
# A counter that files written before torch 0.4.1 lack, and nothing here needs.
_COUNTER = "num_batches_tracked"
_NAMED_MAX = 3


class Weights(NamedTuple):
    """Tensors by name, and where they are from.

    Attributes:
        source: as a person would name it.
        state: the tensors, on the CPU.
        classes: what the head tells apart, in order; None when the file doesn't say.
        arch: the network that they are of; None when the file doesn't say.
    """

    source: str
    state: dict[str, Tensor]
    classes: list[str] | None
    arch: str | None


def find_weights(arch: str, wanted: str) -> Weights:
    """Read weights for a network.

    Args:
        arch: the network.
        wanted: a name of torchvision's ("IMAGENET1K_V2", "DEFAULT"), or a file: a state dict, or
            a checkpoint of `trainer fit` or of anybody who keeps it under "model" or "state_dict".

    Raises:
        OptionError: no such name or file, the file holds no weights, or they can be fetched from
            nowhere; the message says where to put the file.
    """
    path = Path(wanted)
    if path.suffix in _SUFFIXES or "/" in wanted:
        return read_weights(path)
    return _published(arch, wanted)


def read_weights(path: Path) -> Weights:
    """Read a file of weights; see `find_weights`."""
    if not path.is_file():
        raise augd.OptionError(
            f"--weights: {path} does not exist; give a file, or a name of torchvision's weights"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler meets in a file that is none
        raise augd.OptionError(
            f"--weights: {path} is no file of weights, or a damaged one ({type(error).__name__}); "
            "save a network's state_dict() with torch.save"
        ) from None
    state, settings = _state_in(content)
    if not state:
        raise augd.OptionError(
            f"--weights: {path} holds no tensors by name, but {type(content).__name__}; save a "
            "network's state_dict() with torch.save"
        )
    return Weights(str(path), state, settings.get("classes"), settings.get("arch"))


def _state_in(content: Any) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    if not isinstance(content, Mapping):
        return {}, {}
    settings = content.get("settings")
    for key in ("ema", "model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    state = {_bare(name): one for name, one in content.items() if isinstance(one, Tensor)}
    return state, settings if isinstance(settings, Mapping) else {}


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _published(arch: str, wanted: str) -> Weights:
    if arch == SMALL_CONVNET:
        raise augd.OptionError(
            f"--weights: there are none published for {arch}, got {wanted!r}; give a file"
        )
    known = torchvision_models().get_model_weights(arch)
    name = wanted.rpartition(".")[2]
    if name not in known.__members__:
        names = ", ".join(known.__members__) or "none"
        raise augd.OptionError(
            f"--weights: expected one of {names} for {arch}, or a file (*.pt, *.pth), "
            f"got {wanted!r}"
        )
    weights = known[name]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / weights.url.rpartition("/")[2]
    try:
        state = weights.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # no network, a cut download, a damaged file: each in its own way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise augd.OptionError(
            f"--weights: {weights} cannot be had ({reason}). Put {file.name} into {folder} by "
            f"hand, from {weights.url}, or give the file itself: --weights {file.name}"
        ) from None
    return Weights(str(weights), dict(state), list(weights.meta["categories"]), arch)


def put_weights(staged: StagedNetwork, weights: Weights, classes: list[str]) -> str:
    """Copy weights into a network; returns a line that says what became of the head.

    The network's new head replaces one of other classes: of another number, or of other names where
    the file tells them.

    Raises:
        OptionError: the weights are of another architecture.
    """
    arch, network, stages = staged
    own = network.state_dict()
    state = _fitted(arch, network, weights.state)
    head = {name: own[name] for name in own if name.startswith(f"{stages.head}.")}
    verdict = _verdict_on_head(stages.head, head, state, weights.classes, classes)
    if verdict.is_new:
        state = {**state, **head}
    _refuse_others(weights, arch, own, state)
    network.load_state_dict(state, strict=False)  # but for counters, nothing is missing
    return f"weights {weights.source}: {verdict.said}"


class _Verdict(NamedTuple):
    is_new: bool
    said: str


def _verdict_on_head(
    name: str,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    theirs: list[str] | None,
    ours: list[str],
) -> _Verdict:
    found = state.get(f"{name}.weight")
    here = own[f"{name}.weight"]
    if found is None:
        return _Verdict(True, f"the head {name} is new, the file has none")
    if found.shape != here.shape:
        shapes = f"{_shape(found)} there, {_shape(here)} for {len(ours)} classes here"
        return _Verdict(True, f"the head {name} is new: {shapes}")
    if theirs is not None and theirs != ours:
        return _Verdict(
            True, f"the head {name} is new: it told {_few(theirs)} apart, here {_few(ours)}"
        )
    why = "it is of the same classes" if theirs == ours else f"it is for {len(ours)} classes, too"
    return _Verdict(False, f"the head {name} is kept: {why}")


def _fitted(arch: str, network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take second heads away, and stretch a transformer's positions to this size of images."""
    kept = {name: one for name, one in state.items() if not name.startswith(_SECOND_HEADS)}
    positions = kept.get("encoder.pos_embedding")
    if not arch.startswith("vit_") or positions is None:
        return kept
    if positions.shape == network.get_parameter("encoder.pos_embedding").shape:
        return kept
    vision_transformer = torchvision_models().vision_transformer
    size = {"image_size": network.image_size, "patch_size": network.patch_size}
    return dict(vision_transformer.interpolate_embeddings(model_state=dict(kept), **size))


def _refuse_others(
    weights: Weights, arch: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    lacking = [name for name in own if name not in state and not name.endswith(_COUNTER)]
    unknown = [name for name in state if name not in own]
    other = [
        f"{name}: {_shape(state[name])} there, {_shape(own[name])} here"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    parts = (("it lacks", lacking), ("it has besides", unknown), ("of another shape are", other))
    told = [f"{what} {_few(names)}" for what, names in parts if names]
    if told:
        of = f", it is of {weights.arch}" if weights.arch not in (None, arch) else ""
        raise augd.OptionError(
            f"--weights: {weights.source} does not fit {arch}{of}: {'; '.join(told)}. Give weights "
            "of this network, or their --arch."
        )


def _few(names: list[str]) -> str:
    if len(names) <= _NAMED_MAX + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED_MAX])} and {len(names) - _NAMED_MAX} more"


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
