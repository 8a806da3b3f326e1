"""Visualises what a network has learnt: filters, features, strongest patches, and Grad-CAM.

Used after training, on a trained network and a stream in the index's order. Changes no weight, and
removes every hook that it registers. Images are arrays; the command writes files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import augd

from ..data.host_feed import Batch
from ..models.stages import Stages
from .images import Pixels, grid

# A filter of 3 x 3 pixels is to be looked at as well as one of 11 x 11.
_FILTER_SIDE_PX = 36


def filters(network: nn.Module) -> Pixels:
    """Draw the filters of the first layer, each on its own scale around grey.

    Raises:
        OptionError: the network's first layer is no convolution over three colours.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            weights = module.weight.detach().float().cpu()
            extreme = weights.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
            levels = ((weights / extreme + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
            zoom = max(1, _FILTER_SIDE_PX // levels.shape[1])
            return grid(levels.repeat(zoom, 1).repeat(zoom, 2))
    raise augd.OptionError(
        f"inspect: {type(network).__name__} has no convolution over the three colours, so no "
        "filters to look at; ask for something else"
    )


@contextmanager
def watched(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a module gives while inside; copies, so that nothing later changes them.

    Tensors only: an attention layer, say, gives a tuple, of which nothing is collected.
    """
    seen: list[Tensor] = []

    def collect(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            seen.append(output.clone())

    handle = module.register_forward_hook(collect)
    try:
        yield seen
    finally:
        handle.remove()


def find_layer(network: nn.Module, stages: Stages, name: str | None, image: Tensor) -> str:
    """Return the layer of a name, or the last one that still has maps; `image` is (1, 3, H, W).

    Raises:
        OptionError: no such layer, or it has no maps (B, C, H, W).
    """
    names: list[str]
    if name is None:
        # Swin's stages give (B, H, W, C), and a layer behind them the maps; a transformer that cuts
        # the image up by a convolution has maps inside of its first module only.
        names = [one for one, _ in network.named_modules() if one]
        names += [one for one, _ in network.named_children()]
        names += [module for stage in stages.stages for module in stage.modules]
    elif name in dict(network.named_modules()):
        names = [name]
    else:
        known = [one for one, _ in network.named_modules() if one]
        close = ", ".join(get_close_matches(name, known, 3)) or ", ".join(known[:8])
        raise augd.OptionError(f"--layer: there is no {name!r}; did you mean one of {close}?")
    shapes = _shapes(network, image)
    try:
        higher = _shapes(network, torch.cat([image, image], 2))
    except (RuntimeError, ValueError, AssertionError):
        higher = None
    for layer in reversed(names):
        shape = shapes.get(layer, torch.Size())
        if len(shape) != 4 or (name is None and shape[2:] == (1, 1)):
            continue
        if _has_channels_second(shape, None if higher is None else higher[layer], image):
            return layer
    raise augd.OptionError(
        f"--layer: expected a layer that gives maps (B, C, H, W), and "
        f"{name or type(network).__name__} gives none: choose another"
    )


@torch.no_grad()
def _shapes(network: nn.Module, image: Tensor) -> dict[str, torch.Size]:
    """Return the shapes of what layers give, where that is a tensor."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[name] = output.shape

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, module in network.named_modules()
    ]
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _has_channels_second(shape: torch.Size, higher: torch.Size | None, image: Tensor) -> bool:
    """Tell (B, C, H, W) from (B, H, W, C): an image twice as high changes H and never C.

    A network that takes images of one size only cannot be asked: maps of a square image are square.
    """
    if higher is not None:
        return len(higher) == 4 and higher[1] == shape[1]
    is_square = image.shape[2] == image.shape[3]
    return not is_square or shape[2] == shape[3]


@torch.no_grad()
def features(network: nn.Module, stages: Stages, images: Tensor) -> Tensor:
    """Return what the head gets, (B, D); averaged over space where that has maps."""
    seen: list[Tensor] = []
    head = network.get_submodule(stages.head)
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        network(images)
    finally:
        handle.remove()
    found = seen[0]
    return found.mean((2, 3)) if found.dim() == 4 else found


def project(points: NDArray[np.float32], method: str, seed: int = 0) -> NDArray[np.float64]:
    """Lay features (N, D) out in the plane: (N, 2), by "pca" or "tsne".

    Source: Pearson 1901; van der Maaten and Hinton 2008, begun from the principal components.
    """
    from sklearn.decomposition import PCA  # type: ignore[import-untyped]
    from sklearn.manifold import TSNE  # type: ignore[import-untyped]

    if method == "pca":
        found: NDArray[np.float64] = PCA(2, random_state=seed).fit_transform(points)
        return found
    # Its authors' usual 5 to 50, and less than a third of the points, as scikit-learn wants.
    perplexity = max(1.0, min(30.0, (len(points) - 1) / 3))
    found = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return found


class ChannelPeak(NamedTuple):
    """Where a channel answered strongest in one image.

    Attributes:
        value: of the activation.
        sample: id in the dataset.
        row, column: in the layer's map.
    """

    value: float
    sample: int
    row: int
    column: int


@torch.no_grad()
def strongest(
    network: nn.Module, layer: str, batches: Iterable[Batch], count: int
) -> list[list[ChannelPeak]]:
    """Find, for every channel of a layer, the `count` images that it answers to most.

    One place per image, its strongest; the strongest image first.

    Source: Girshick et al. 2014, section 3.1 (visualising learned features).
    """
    best: list[list[ChannelPeak]] = []
    with watched(network.get_submodule(layer)) as seen:
        for batch in batches:
            images, ids = batch.images[batch.valid], batch.ids[batch.valid].tolist()
            if not ids:
                continue
            network(images)
            maps = seen.pop()
            width = maps.shape[3]
            values, places = maps.flatten(2).max(2)  # (B, C)
            best = best or [[] for _ in range(maps.shape[1])]
            for channel, (of_images, at) in enumerate(
                zip(values.T.tolist(), places.T.tolist(), strict=True)
            ):
                for value, sample, place in zip(of_images, ids, at, strict=True):
                    best[channel].append(ChannelPeak(value, sample, place // width, place % width))
                best[channel].sort(key=lambda one: (-one.value, one.sample))
                del best[channel][count:]
    return best


class Box(NamedTuple):
    """Pixels top <= y < bottom, left <= x < right."""

    top: int
    left: int
    bottom: int
    right: int

    def scaled(self, factor: int) -> Box:
        """Return the same part of an image that is so many times larger."""
        return Box(*(factor * edge for edge in self))


def field(network: nn.Module, layer: str, channel: int, place: ChannelPeak, image: Tensor) -> Box:
    """Return the receptive field of a place: the pixels of an image (1, 3, H, W) that count there.

    The box around all pixels that the activation's gradient reaches. It depends on these in this
    image, never on more than the arithmetic of kernels and strides allows.
    """
    image = image.detach().clone().requires_grad_(True)
    with watched(network.get_submodule(layer)) as seen:
        network(image)
    (gradient,) = torch.autograd.grad(seen[0][0, channel, place.row, place.column], image)
    counts = gradient[0].abs().amax(0) > 0
    rows, columns = counts.any(1).nonzero().flatten(), counts.any(0).nonzero().flatten()
    if not len(rows):  # an activation that nothing moves: the whole image is as good as any part
        return Box(0, 0, image.shape[2], image.shape[3])
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def cut(image: Pixels, box: Box, side_px: int) -> Pixels:
    """Cut a box out of (H, W, 3) and fit it into (side_px, side_px, 3); what is left is black."""
    part = image[box.top : box.bottom, box.left : box.right]
    height, width = part.shape[:2]
    scale = side_px / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    levels = torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float()
    resized = functional.interpolate(levels, size, mode="bilinear", antialias=True)
    out = np.zeros((side_px, side_px, 3), np.uint8)
    top, left = (side_px - size[0]) // 2, (side_px - size[1]) // 2
    pixels = resized[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    out[top : top + size[0], left : left + size[1]] = pixels
    return out


def grad_cam(
    network: nn.Module, layer: str, images: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Say which regions speak for a class: heat (B, H, W), 0..1, and the classes int64 (B,).

    labels: the classes to ask for; None asks for the likeliest one of each image. The layer's maps,
    weighed by the mean of their gradients and summed. What speaks against the class is cut off. The
    rest is scaled to its largest value and stretched to the image.

    Source: Selvaraju et al. 2017, section 3.
    """
    maps: list[Tensor] = []

    def pass_on(_: nn.Module, __: object, output: Tensor) -> Tensor:
        maps.append(output)
        return output.clone()  # a ReLU in place behind the layer changes the copy

    handle = network.get_submodule(layer).register_forward_hook(pass_on)
    try:
        logits = network(images.detach().requires_grad_(True))
    finally:
        handle.remove()
    classes = logits.argmax(1) if labels is None else labels
    score = logits.gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, maps[0])
    weights = gradient.mean((2, 3), keepdim=True)
    heat = (maps[0].detach() * weights).sum(1, keepdim=True).relu()
    heat = heat / heat.amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    stretched = functional.interpolate(heat, images.shape[2:], mode="bilinear")
    return stretched[:, 0], classes
