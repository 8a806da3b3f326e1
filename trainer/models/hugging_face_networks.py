"""Image classifiers of Hugging Face, from a folder (`--arch hf:DIR`); needs the extra `hf`.

The folder has a `config.json` and perhaps weights, as `save_pretrained` writes them. Nothing is
downloaded, and no code of the folder is run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

import augd

from .network_source import Built, load_library, refused
from .trace import logits_of

PREFIX = "hf:"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def check(arch: str) -> None:
    """Check that the folder is there, and transformers.

    Raises:
        OptionError: one of them is missing.
    """
    folder = Path(arch.removeprefix(PREFIX))
    if not (folder / "config.json").is_file():
        raise augd.OptionError(
            f"--arch: {arch}: there is no {folder / 'config.json'}; give the folder that "
            "save_pretrained wrote, or that was downloaded as a whole"
        )
    load_library("transformers", "hf")


def build(arch: str, num_classes: int, size_px: tuple[int, int] | None) -> Built:
    """Build a network of random weights.

    Raises:
        OptionError: as `check` says, or the folder is of no image classifier.
    """
    check(arch)
    transformers = load_library("transformers", "hf")
    folder = arch.removeprefix(PREFIX)
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        config.num_labels = num_classes
        network: nn.Module = transformers.AutoModelForImageClassification.from_config(
            config, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise refused(arch, error) from None
    give_logits(network)
    own = getattr(config, "image_size", None)
    own_px = (own, own) if isinstance(own, int) else tuple(own or (224, 224))
    sizes = (own_px,) if size_px is None else (own_px, size_px)
    return Built(network, _heads(network), sizes)


def give_logits(network: nn.Module) -> None:
    """Let a network of transformers give its logits, in place of a record that has them."""
    is_theirs = type(network).__module__.partition(".")[0] == "transformers"
    if is_theirs and _pick not in network._forward_hooks.values():
        network.register_forward_hook(_pick)


def _pick(network: nn.Module, inputs: object, output: Any) -> Any:
    return logits_of(output)


def _heads(network: nn.Module) -> tuple[str, ...]:
    """Return the name of the linear layer in `classifier`, or of all of it if that has several."""
    classifier = getattr(network, "classifier", None)
    if not isinstance(classifier, nn.Module):
        return ()
    layers = [
        name for name, one in classifier.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)
    ]
    if len(layers) == 1:
        return (".".join(filter(None, ("classifier", layers[0]))),)
    return ("classifier",) if layers else ()


def weights_file(arch: str) -> Path:
    """Return the file of weights that lies in the folder.

    Raises:
        OptionError: there is none.
    """
    folder = Path(arch.removeprefix(PREFIX))
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise augd.OptionError(
        f"--weights: {folder} has none of {', '.join(_WEIGHTS)}; give a file of weights"
    )


def constants(arch: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std in the folder's `preprocessor_config.json`, if it says them."""
    path = Path(arch.removeprefix(PREFIX)) / "preprocessor_config.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        if not content.get("do_normalize", True):
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        mean, std = (tuple(map(float, content[one])) for one in ("image_mean", "image_std"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (mean, std) if len(mean) == len(std) == 3 else None


def classes_of(arch: str) -> list[str] | None:
    """Return the names of the classes that the folder's weights tell apart, if it says them."""
    try:
        content = json.loads((Path(arch.removeprefix(PREFIX)) / "config.json").read_text("utf-8"))
        names = content["id2label"]
        return [str(names[str(number)]) for number in range(len(names))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
