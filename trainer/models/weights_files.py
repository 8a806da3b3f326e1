"""Files of weights: `.pt` and its like by torch, `.safetensors` by the library of that name.

Invariants: no code of a file is run (`weights_only=True`; safetensors has none); a file is written
whole, or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import augd
from augd.errors import install_extra

SAFETENSORS = ".safetensors"
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", SAFETENSORS)
# What DistributedDataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")


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


def read_weights(path: Path) -> Weights:
    """Read a file of weights: a state dict, or a checkpoint that holds one.

    Raises:
        OptionError: there is no such file, or it holds no weights.
    """
    if not path.is_file():
        raise augd.OptionError(
            f"--weights: {path} does not exist; give a file, or a name of published weights"
        )
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
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


def _read_safetensors(path: Path) -> Weights:
    open_file = _safetensors().safe_open
    try:
        with open_file(path, framework="pt", device="cpu") as file:
            told = file.metadata() or {}
            state = {_bare(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # whatever the library meets in a file that is none
        raise augd.OptionError(
            f"--weights: {path} is no file of weights, or a damaged one ({type(error).__name__}: "
            f"{error}); write it by safetensors.torch.save_file or `trainer export`"
        ) from None
    return Weights(str(path), state, _classes_in(told), told.get("arch"))


def _classes_in(told: Mapping[str, str]) -> list[str] | None:
    try:
        classes = json.loads(told["classes"])
    except (KeyError, ValueError):
        return None
    is_list = isinstance(classes, list) and all(isinstance(one, str) for one in classes)
    return classes if is_list else None


def write_weights(path: Path, state: Mapping[str, Tensor], told: Mapping[str, str]) -> None:
    """Write tensors and what is told about them, as the suffix says; a whole file or none.

    Raises:
        AugdError: no space, no permission.
        OptionError: safetensors is not installed.
    """
    # safetensors refuses two names of one memory, as of a layer that a network holds twice.
    tensors = {name: one.detach().cpu().contiguous().clone() for name, one in state.items()}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == SAFETENSORS:
            save_file = _safetensors("torch").save_file
            save_file(tensors, unfinished, metadata={"format": "pt", **told})
        else:
            settings = {"arch": told.get("arch"), "classes": _classes_in(told)}
            torch.save({"state_dict": tensors, "settings": settings}, unfinished)
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:
        raise augd.AugdError(
            f"{path} cannot be written ({str(error).partition(chr(10))[0]}); make space, or "
            "choose another place"
        ) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _safetensors(part: str = "") -> Any:
    try:
        if part == "torch":
            import safetensors.torch

            return safetensors.torch
        import safetensors
    except ImportError as error:
        raise augd.OptionError(
            f"*{SAFETENSORS} needs safetensors, which cannot be loaded ({error}): "
            f"{install_extra('trainer')}"
        ) from None
    return safetensors


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
