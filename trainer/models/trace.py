"""A forward pass without content: which modules an image meets, in order.

Used by `trainer.models.stages`. The pass runs on the meta device: nothing is computed, and neither
weights nor buffers change. A network that cannot run there passes one black image on the CPU.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import augd

# A module with more than this share of all weights is the network itself under another name.
_BODY_SHARE = 0.5
_BLOCKS_MIN = 2


@dataclass(slots=True)
class Unit:
    """A module that is not looked into, as the pass met it."""

    name: str
    module: nn.Module
    resolution: Hashable
    output: int  # its identity, while the pass lasts


@dataclass(slots=True)
class Trace:
    """What a pass met.

    Attributes:
        units: modules that are no mere sequence of others, in the order of their first call.
        leaves: names of modules with weights and without children, in the order of the last call.
        result, shape: identity and shape of what the network gave.
    """

    units: list[Unit]
    leaves: list[str]
    result: int
    shape: tuple[int, ...]


def logits_of(output: Any) -> Any:
    """Return the logits of what a network gave: Hugging Face's give a record that has them."""
    return getattr(output, "logits", output)


def trace(
    network: nn.Module, sizes_px: Sequence[tuple[int, int]], heads: Sequence[str] = ()
) -> Trace:
    """Pass an image without content through, and note what it meets.

    Args:
        network: any; it is left as it was.
        sizes_px: (height, width) to try in turn.
        heads: modules that are not looked into; what holds them is.

    Raises:
        OptionError: the network takes no such image, or gives no tensor of a row per image.
    """
    error: Exception | None = None
    for size_px in sizes_px:
        for is_hollow in (True, False):
            try:
                return _pass(network, size_px, tuple(heads), is_hollow=is_hollow)
            except (RuntimeError, ValueError, AssertionError, NotImplementedError) as problem:
                error = problem
            except (TypeError, AttributeError, IndexError, KeyError) as problem:
                error = problem  # code that is not written for a tensor without content
    height, width = sizes_px[-1]
    reason = str(error).strip().partition("\n")[0]
    raise augd.OptionError(
        f"--arch: {type(network).__name__} cannot take images of {height} x {width} px ({reason}). "
        "Try another --size, or another network."
    ) from None


def _pass(
    network: nn.Module, size_px: tuple[int, int], heads: tuple[str, ...], *, is_hollow: bool
) -> Trace:
    units: list[Unit] = []
    leaves: dict[str, None] = {}
    seen: list[Tensor] = []  # kept, so that no identity is given twice

    def note(name: str, module: nn.Module, output: object) -> None:
        found = _tensor_of(output)
        if found is not None and all(unit.module is not module for unit in units):
            seen.append(found)
            units.append(Unit(name, module, _resolution(len(units), found), id(found)))

    def note_leaf(name: str) -> None:
        leaves.pop(name, None)
        leaves[name] = None

    handles = [
        module.register_forward_hook(
            lambda module, _, output, name=name: note(name, module, output)
        )
        for name, module in _units(network, heads)
    ]
    handles += [
        module.register_forward_hook(lambda *_, name=name: note_leaf(name))
        for name, module in network.named_modules()
        if next(module.parameters(), None) is not None and next(module.children(), None) is None
    ]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            result = logits_of(_call(network, size_px, is_hollow=is_hollow))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for handle in handles:
            handle.remove()
    if not isinstance(result, Tensor) or len(result) != 1:
        raise ValueError(f"it gives {type(result).__name__}, expected logits (B, K)")
    seen.append(result)
    return Trace(units, list(leaves), id(result), tuple(result.shape))


def _call(network: nn.Module, size_px: tuple[int, int], *, is_hollow: bool) -> Any:
    if not is_hollow:
        return network(torch.zeros(1, 3, *size_px))
    held = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    hollow = {name: torch.empty_like(tensor, device="meta") for name, tensor in held.items()}
    image = torch.empty(1, 3, *size_px, device="meta")
    return torch.func.functional_call(network, hollow, (image,))


def _tensor_of(output: object) -> Tensor | None:
    """Return the tensor that a module gives, or the first one of several."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def _units(network: nn.Module, heads: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Yield what is no mere sequence of other modules: layers and residual blocks."""
    num_weights = _count(network)

    def inside(module: nn.Module, above: str) -> Iterator[tuple[str, nn.Module]]:
        for name, child in module.named_children():
            path = f"{above}{name}"
            holds_head = any(head.startswith(f"{path}.") for head in heads)
            if path in heads or not (holds_head or _is_open(child, num_weights)):
                yield path, child
            else:
                yield from inside(child, f"{path}.")

    return inside(network, "")


def _is_open(module: nn.Module, num_weights: int) -> bool:
    """Say whether a module is looked into."""
    # torchvision's transformers keep their blocks in one that also adds the positions.
    if isinstance(module, nn.Sequential | nn.ModuleList) or type(module).__name__ == "Encoder":
        return True
    # A backbone in a module of its own, as Hugging Face's are.
    return _count(module) > _BODY_SHARE * num_weights and _has_blocks(module)


def _has_blocks(module: nn.Module) -> bool:
    """Say whether blocks are repeated inside: modules of one class with modules of their own."""
    for one in module.modules():
        if isinstance(one, nn.Sequential | nn.ModuleList):
            kinds = [type(block) for block in one if next(block.children(), None) is not None]
            if any(kinds.count(kind) >= _BLOCKS_MIN for kind in kinds):
                return True
    return False


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _resolution(number: int, output: Tensor) -> Hashable:
    """Return what modules of one stage have in common: the extent of their output."""
    if output.dim() == 4:
        return tuple(output.shape[2:])
    # Tokens keep their number through a transformer: there each block is a stage.
    return "vector" if output.dim() == 2 else number
