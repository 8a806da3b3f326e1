"""Networks of timm, by their names there (`--arch timm:NAME`); needs the extra `timm`.

timm says which layers are the classifier. A name may end with a tag of weights
(`resnet50.a1_in1k`), which are the ones that `--weights DEFAULT` takes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

import augd

from .network_source import Built, load_library, name_of, refused

PREFIX = "timm:"


def _timm() -> Any:
    return load_library("timm", "timm")


def check(arch: str) -> None:
    """Check that there is such a network.

    Raises:
        OptionError: timm is missing, or has no such network.
    """
    timm = _timm()
    name = arch.removeprefix(PREFIX)
    bare = name.partition(".")[0]
    # Only names of its own list: timm would look for others ("hf-hub:...") on the internet.
    known = timm.list_models()
    if bare not in known:
        close = ", ".join(get_close_matches(bare.lower(), known, 3))
        hint = f"did you mean one of {close}?" if close else "timm.list_models() lists them."
        raise augd.OptionError(f"--arch: timm has no network {name!r}; {hint}")


def build(arch: str, num_classes: int, size_px: tuple[int, int] | None) -> Built:
    """Build a network of random weights; `size_px` is for those that fix it.

    Raises:
        OptionError: as `check` says, or the size is none for this network.
    """
    check(arch)
    bare = arch.removeprefix(PREFIX).partition(".")[0]
    constants = _timm().get_pretrained_cfg(bare)
    own_px = tuple(constants.input_size[1:]) if constants is not None else (224, 224)
    is_fixed = constants is not None and constants.fixed_input_size
    network = None
    if is_fixed and size_px not in (None, own_px):
        network = _created(arch, num_classes, img_size=size_px)
        own_px = own_px if network is None else size_px
    if network is None:
        network = _created(arch, num_classes)
    assert network is not None
    sizes = (own_px,) if size_px is None else (own_px, size_px)
    return Built(network, heads_of(network), sizes)


def _created(arch: str, num_classes: int, **more: Any) -> nn.Module | None:
    """Build a network; None if it takes no such argument."""
    name = arch.removeprefix(PREFIX)
    try:
        network: nn.Module = _timm().create_model(
            name, pretrained=False, num_classes=num_classes, **more
        )
    except TypeError:
        if more:
            return None
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        raise refused(arch, error) from None
    return network


def heads_of(network: Any) -> tuple[str, ...]:
    """Return the names of the layers that timm calls the classifier; () of a network of others."""
    if not (hasattr(network, "get_classifier") and hasattr(network, "pretrained_cfg")):
        return ()
    found = network.get_classifier()
    parts = found if isinstance(found, tuple | list) else (found,)
    names = [name_of(network, one) for one in parts]
    declared = network.pretrained_cfg.get("classifier") or ()
    more = (declared,) if isinstance(declared, str) else declared
    known = dict(network.named_modules())
    names += [name for name in more if name in known]  # as of a second head, for patches
    heads: dict[str, None] = {}
    for name in names:
        if name and isinstance(known[name], nn.ModuleList):
            heads |= dict.fromkeys(f"{name}.{one}" for one, _ in known[name].named_children())
        elif name:
            heads[name] = None
    learning = [name for name in heads if next(known[name].parameters(), None) is not None]
    return tuple(
        name for name in learning if not any(name.startswith(f"{one}.") for one in learning)
    )


def constants(arch: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std of the network's published weights."""
    check(arch)
    found = _timm().get_pretrained_cfg(arch.removeprefix(PREFIX), allow_unregistered=True)
    return None if found is None else (tuple(found.mean), tuple(found.std))


def fitted(network: nn.Module, state: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """Name and shape published tensors as this version of timm does; positions are resampled."""
    convert: Any = getattr(sys.modules.get(type(network).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted: Mapping[str, Tensor] = convert(dict(state), network)
    except Exception:  # of weights of another network, which are compared name by name later
        return state
    return converted


def published(arch: str, wanted: str) -> tuple[str, dict[str, Tensor]]:
    """Return the name and the tensors of published weights; may download them.

    Raises:
        OptionError: there are no such weights, or they cannot be had.
    """
    timm = _timm()
    bare, _, own_tag = arch.removeprefix(PREFIX).partition(".")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{bare}.*")]
    tag = own_tag if wanted == "DEFAULT" else wanted
    if not tags or (tag and tag not in tags):
        raise augd.OptionError(
            f"--weights: expected {', '.join(['DEFAULT', *tags])} for {arch}, or a file (*.pt, "
            f"*.pth, *.safetensors), got {wanted!r}"
        )
    name = f"{bare}.{tag}" if tag else bare
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # no network, a cut download: each in its own way
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise augd.OptionError(
            f"--weights: {PREFIX}{name} cannot be had ({reason}). Give a file of its weights: "
            "--weights FILE.safetensors"
        ) from None
    return f"{PREFIX}{name}", dict(network.state_dict())
