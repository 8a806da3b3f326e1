"""Initial weights of a network: published ones by name, or a file.

Used between building a network and its first step. Tensors that don't fit are named in the error.
Only a head for other classes is replaced, with a message. This module alone may use the internet,
to download weights by name; `trainer.models.weights_files` reads files.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import augd

from . import hugging_face_networks, timm_networks
from .build_network import StagedNetwork
from .head import renew_head
from .own_networks import is_own
from .torchvision_networks import SMALL_CONVNET, torchvision_models
from .weights_files import SUFFIXES, Weights, read_weights

# Second heads of googlenet and inception_v3, which are built without.
_SECOND_HEADS = ("aux1.", "aux2.", "AuxLogits.")
# A counter that files written before torch 0.4.1 lack, and nothing here needs.
_COUNTER = "num_batches_tracked"
_NAMED_MAX = 3


def find_weights(arch: str, wanted: str) -> Weights:
    """Read weights for a network.

    Args:
        arch: the network.
        wanted: a name of published weights ("IMAGENET1K_V2", "DEFAULT"), or a file: a state dict,
            or a checkpoint of `trainer fit` or another one that has it under "model" or
            "state_dict". DEFAULT of "hf:DIR" are those in DIR.

    Raises:
        OptionError: no such name or file, the file holds no weights, or they can be fetched from
            nowhere; the message says where to put the file.
    """
    path = Path(wanted)
    if path.suffix in SUFFIXES or "/" in wanted:
        return read_weights(path)
    if arch.startswith(timm_networks.PREFIX):
        source, state = timm_networks.published(arch, wanted)
        return Weights(source, state, None, arch)
    if arch.startswith(hugging_face_networks.PREFIX) and wanted == "DEFAULT":
        found = read_weights(hugging_face_networks.weights_file(arch))
        return found._replace(classes=hugging_face_networks.classes_of(arch), arch=arch)
    return _published(arch, wanted)


def _published(arch: str, wanted: str) -> Weights:
    if arch == SMALL_CONVNET or is_own(arch):
        raise augd.OptionError(
            f"--weights: there are none published for {arch}, got {wanted!r}; give a file"
        )
    known = torchvision_models().get_model_weights(arch)
    name = wanted.rpartition(".")[2]
    if name not in known.__members__:
        names = ", ".join(known.__members__) or "none"
        raise augd.OptionError(
            f"--weights: expected one of {names} for {arch}, or a file (*.pt, *.pth, "
            f"*.safetensors), got {wanted!r}"
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
    head = {name: one for name, one in own.items() if stages.is_of_head(name)}
    theirs = {name: one for name, one in state.items() if stages.is_of_head(name)}
    verdict = _verdict_on_head(stages.head, head, theirs, weights.classes, classes)
    if verdict.is_new:
        renew_head(network, stages)  # in place: `head` has the new values
        state = {**{name: one for name, one in state.items() if name not in theirs}, **head}
    _refuse_others(weights, arch, own, state)
    network.load_state_dict(state, strict=False)  # but for counters, nothing is missing
    return f"weights {weights.source}: {verdict.said}"


def load_state(
    staged: StagedNetwork, state: Mapping[str, Tensor], source: str, option: str
) -> None:
    """Copy a whole network's weights, head included, as a checkpoint has them.

    Raises:
        OptionError: they are of another network; the message names `option`.
    """
    weights = Weights(source, dict(state), None, None)
    _refuse_others(weights, staged.arch, staged.network.state_dict(), state, option)
    staged.network.load_state_dict(state, strict=False)


class _Verdict(NamedTuple):
    is_new: bool
    said: str


def _verdict_on_head(
    name: str,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    theirs: list[str] | None,
    ours: list[str],
) -> _Verdict:
    lacking = [one for one in own if one not in found and not one.endswith(_COUNTER)]
    if not found:
        return _Verdict(True, f"the head {name} is new, the file has none")
    if lacking:
        return _Verdict(True, f"the head {name} is new: the file has no {_few(lacking)}")
    for one, here in own.items():
        if one in found and found[one].shape != here.shape:
            shapes = f"{_shape(found[one])} there, {_shape(here)} for {len(ours)} classes here"
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
    if arch.startswith(timm_networks.PREFIX):
        return dict(timm_networks.fitted(network, kept))
    positions = kept.get("encoder.pos_embedding")
    if not arch.startswith("vit_") or positions is None:
        return kept
    if positions.shape == network.get_parameter("encoder.pos_embedding").shape:
        return kept
    vision_transformer = torchvision_models().vision_transformer
    size = {"image_size": network.image_size, "patch_size": network.patch_size}
    return dict(vision_transformer.interpolate_embeddings(model_state=dict(kept), **size))


def _refuse_others(
    weights: Weights,
    arch: str,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    option: str = "--weights",
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
            f"{option}: {weights.source} does not fit {arch}{of}: {'; '.join(told)}. Give weights "
            "of this network, or their --arch."
        )


def _few(names: list[str]) -> str:
    if len(names) <= _NAMED_MAX + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED_MAX])} and {len(names) - _NAMED_MAX} more"


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
