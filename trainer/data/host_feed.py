"""Batches of tensors on the CPU, and their normalisation.

Runs in the training process, in the caller's thread alone. A slot is read once, straight into the
float tensor that the caller gets. No uint8 batch is copied, and memory for the floats is reused.
`trainer.data.cuda_feed` does the same for a CUDA device.
"""

from __future__ import annotations

import mmap
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import augd

from .constants import IMAGENET, Constants
from .mixing import mix_rows, mixing_of

Pixels = Tensor | Mapping[str, Tensor]  # by the name of views, if the recipe has view groups
Tensors = tuple[Pixels, Tensor, Tensor, Tensor]  # images, labels, ids, valid
Params = dict[str, Any] | None
LabelRange = tuple[float, float] | None

# Less than at::internal::GRAIN_SIZE, from which on torch's kernels use its thread pool.
_PART_VALUES = 32767
# Outputs kept for reuse: one in the consumer's hands while the next one is filled.
_FREE_BLOCKS_MAX = 2


class Batch:
    """One batch as tensors.

    Attributes:
        images: (B, 3, H, W) in the stream's dtype, normalised, with the colours of a recipe that
            leaves them to the device. With `normalize=False` uint8 (B, H, W, 3), RGB. With V > 1
            views (B, V, 3, H, W), or (B, V, H, W, 3). A recipe with view groups has none: it has
            `views`.
        views: of a recipe with view groups, by name: such tensors with V the number of views of
            the name. Else empty.
        labels: int64 (B,); -1 in a dataset without classes, -100 where `valid` is false. For a
            multi-label dataset float32 (B, K).
        ids: int64 (B,): positions in the dataset's index; -1 for padding.
        valid: bool (B,): false for bad samples and for padding (black before normalising).
        targets: with a recipe that has `mix`, float32 (B, K): the mixed targets; else None.
        partners: with `mix`, int64 (B,): the row that is mixed in, a row itself if none is.
        share: with `mix`, float32 (B,): the weight of the row's own label.
        params: with `params=True`, the parameters drawn for each row, by name: float64 (B,
            ...), on the CPU; else None. With view groups such a mapping by name.
        epoch, number, position: which batch it is, and where it begins in the epoch.
        label_range: lowest and highest label if they were read on the CPU, else None. Reading
            them from a device would wait for all its earlier work.

    The caller may keep and change the tensors. With `normalize=False` on the CPU they are views
    into a slot of shared memory instead. The slot is given back when the batch and every view
    of its tensors are gone, or by `release()`.
    """

    __slots__ = (
        "_images",
        "_slot",
        "epoch",
        "ids",
        "label_range",
        "labels",
        "number",
        "params",
        "partners",
        "position",
        "share",
        "targets",
        "valid",
        "views",
    )

    def __init__(
        self,
        tensors: Tensors,
        place: tuple[int, int, int],
        slot: augd.Batch | None = None,
        params: Params = None,
        label_range: LabelRange = None,
        mixed: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        self.label_range = label_range
        self.params = params
        pixels, self.labels, self.ids, self.valid = tensors
        self._images = pixels if isinstance(pixels, Tensor) else None
        named = {} if isinstance(pixels, Tensor) else pixels
        self.views: augd.Views[Tensor] = augd.Views(named)
        self.epoch, self.number, self.position = place
        self.targets: Tensor | None = None
        self.partners: Tensor | None = None
        self.share: Tensor | None = None
        if mixed is not None:
            self.targets, self.partners, self.share = mixed
        self._slot = slot

    @property
    def images(self) -> Tensor:
        """The rows of a recipe without view groups."""
        if self._images is None:
            raise AttributeError(self.views.instead_of_images())
        return self._images

    def release(self) -> None:
        """Give the slot back now, if the tensors are views into it: they must not be read then."""
        if self._slot is not None:
            self._slot.release()

    def __len__(self) -> int:
        """Rows of this batch."""
        return len(self.ids)

    def __repr__(self) -> str:
        named = self.views or {"images": self.images}
        rows = ", ".join(f"{name} {tuple(rows.shape)}" for name, rows in named.items())
        one = next(iter(named.values()))
        return f"<Batch {self.number} of epoch {self.epoch}, {rows} {one.dtype} on {one.device}>"


def scale_and_shift(constants: Constants = IMAGENET) -> tuple[Tensor, Tensor]:
    """Return float32 (3,) each: x * scale + shift is (x / 255 - mean) / std for x in 0..255."""
    std = torch.tensor(constants.std, dtype=torch.float64)
    mean = torch.tensor(constants.mean, dtype=torch.float64)
    return (1 / (255 * std)).float(), (-mean / std).float()


def ordinary_tensors() -> torch.inference_mode:
    """Leave the caller's inference mode, if it is on, while tensors are made.

    Tensors made in that mode can never be written, or saved for a backward pass, outside of it.
    That holds for the memory that the next pass reuses, and for a batch staged ahead.
    """
    return torch.inference_mode(False)


def fold(colour: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Fold colour matrices (N, 3, 4) into a normalisation x * scale + shift, (3,) each.

    Returns float32 (N, 3, 3) and (N, 3): what pixels are multiplied by, and what is added.
    """
    return colour[..., :3] * scale[:, None], colour[..., 3] * scale + shift


def memory_format(channels_last: bool) -> torch.memory_format:
    """Order of the output's memory: HWC per image, as it comes, or one plane per channel."""
    return torch.channels_last if channels_last else torch.contiguous_format


class HostBlocks:
    """Memory for outputs on the CPU, reused once no tensor refers to it.

    A fresh block of 38 MB (64 images of 224 px) costs 17 ms of page faults, more than twice the
    time of the arithmetic. The CPU allocator of torch keeps no blocks.
    """

    def __init__(self) -> None:
        self._free: deque[mmap.mmap] = deque(maxlen=_FREE_BLOCKS_MAX)

    @property
    def num_free(self) -> int:
        """Blocks that wait for their next use."""
        return len(self._free)

    def take(self, size_bytes: int) -> Tensor:
        """Return uint8 (size_bytes,) of unspecified content, owned by the caller."""
        block = self._find(size_bytes)
        root = np.frombuffer(block, np.uint8, size_bytes)
        # torch's storage holds `root`, so it lives as long as any view, in Python or autograd.
        weakref.finalize(root, self._free.append, block).atexit = False
        return torch.from_numpy(root)

    def _find(self, size_bytes: int) -> mmap.mmap:
        while self._free:
            block = self._free.pop()
            if len(block) >= size_bytes:
                return block
        return mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class HostNormaliser:
    """uint8 (B, H, W, 3) to normalised floats on the CPU, by the calling thread alone.

    Works in parts that are small enough for torch not to use its thread pool. Producers use the
    cores, too, so every barrier of the pool may cost a time slice. With two producers on two cores,
    64 images of 224 px took about 45 ms by the pool and 12 ms by one thread. Their CPU times were
    16 ms and 7 (on an idle machine, 3 ms and 7). The parts stay in the cache. A whole row of
    constants lets the kernels run along the image's rows: three times as fast as broadcasting three
    numbers.
    """

    def __init__(
        self, dtype: torch.dtype, *, channels_last: bool, constants: Constants = IMAGENET
    ) -> None:
        """Compute in float32, whatever the dtype of the result."""
        self._dtype = dtype
        self._is_direct = channels_last and dtype == torch.float32
        self._channels_last = channels_last
        self._blocks = HostBlocks()
        self._constants = scale_and_shift(constants)
        self._mean_and_std = constants
        self._of_views: dict[str, HostNormaliser] = {}
        self._set_width(0)

    def of_views(self, name: str) -> HostNormaliser:
        """Return a normaliser for the views of a name: their size, and blocks of it, are reused."""
        if name not in self._of_views:
            self._of_views[name] = HostNormaliser(
                self._dtype, channels_last=self._channels_last, constants=self._mean_and_std
            )
        return self._of_views[name]

    def _set_width(self, width: int) -> None:
        self._scale, self._shift = (row.repeat(width, 1) for row in self._constants)
        self._num_rows = max(1, _PART_VALUES // max(1, width * 3))
        self._work = torch.empty(self._num_rows, width, 3)

    def __call__(self, images: Tensor, colour: Tensor | None = None) -> Tensor:
        """Return (B, 3, H, W), or (B, V, 3, H, W) for views, owned by the caller.

        `colour`, (B, 3, 4) or (B, V, 3, 4), is applied first, in float and without clipping.
        """
        if images.dim() == 5:
            flat = None if colour is None else colour.flatten(0, 1)
            rows = self(images.flatten(0, 1), flat)
            return rows.view(*images.shape[:2], *rows.shape[1:])
        if colour is not None:
            return self._coloured(images, colour)
        count, height, width, _ = images.shape
        if width != len(self._scale):
            self._set_width(width)
        out = self._new(count, height, width)
        by_pixel = out.permute(0, 2, 3, 1)
        if self._channels_last:
            self._convert(images.flatten(0, 1), by_pixel.flatten(0, 1))
        else:
            for source, target in zip(images, by_pixel, strict=True):
                self._convert(source, target)
        return out

    def _coloured(self, images: Tensor, colour: Tensor) -> Tensor:
        out = self._new(*images.shape[:3])
        matrices, offsets = fold(colour, *self._constants)
        for source, target, matrix, offset in zip(
            images, out.permute(0, 2, 3, 1), matrices, offsets, strict=True
        ):
            pixels = torch.addmm(offset, source.flatten(0, 1).float(), matrix.T)
            target.copy_(pixels.view_as(source))
        return out

    def _convert(self, source: Tensor, target: Tensor) -> None:
        """Convert rows of images, (rows, W, 3) both."""
        num_rows = self._num_rows
        for first in range(0, len(source), num_rows):
            part, into = source[first : first + num_rows], target[first : first + num_rows]
            floats = into if self._is_direct else self._work[: len(part)]
            floats.copy_(part)
            torch.addcmul(self._shift, floats, self._scale, out=floats)
            if not self._is_direct:
                into.copy_(floats)

    def _new(self, count: int, height: int, width: int) -> Tensor:
        size_bytes = count * height * width * 3 * self._dtype.itemsize
        block = self._blocks.take(size_bytes).view(self._dtype)
        if self._channels_last:
            return block.view(count, height, width, 3).permute(0, 3, 1, 2)
        return block.view(count, 3, height, width)


class HostFeed:
    """The passes over a stream whose batches stay on the CPU."""

    def __init__(self, stream: augd.Stream, normaliser: HostNormaliser | None) -> None:
        """Without a normaliser, hand out views into the slots."""
        self.transfer_s = 0.0
        self._stream = stream
        self._normaliser = normaliser

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield one epoch from its start; a newer pass ends it."""
        # Not a generator: its frame would hold the batch, and so the slot, till the next one.
        deliver = self._view if self._normaliser is None else self._convert
        return map(deliver, self._stream.epoch(epoch))

    def _view(self, batch: augd.Batch) -> Batch:
        extras = params_of(batch), range_of(batch.labels)
        mixing, tensors = mixing_of(batch), views(batch)
        if mixing is None:
            return Batch(tensors, place_of(batch), batch, *extras)
        images = for_views(tensors[0], lambda _, one: mix_rows(one, mixing.mixing))
        kept = (images, *tensors[1:])
        return Batch(kept, place_of(batch), batch, *extras, mixing.to(tensors[1].device))

    def _convert(self, batch: augd.Batch) -> Batch:
        normaliser = self._normaliser
        assert normaliser is not None
        before = time.perf_counter()
        with ordinary_tensors():
            images, labels, ids, valid = views(batch)
            colour = colour_of(batch)
            floats = for_views(
                images, lambda name, one: normaliser.of_views(name)(one, of_view(colour, name))
            )
            tensors = (floats, labels.clone(), ids.clone(), valid.clone())
            extras = params_of(batch), range_of(batch.labels)
            mixing, mixed = mixing_of(batch), None
            if mixing is not None:
                plan = mixing.mixing
                floats = for_views(floats, lambda _, one: mix_rows(one, plan))
                tensors = (floats, *tensors[1:])
                mixed = mixing.to(labels.device)
        batch.release()
        self.transfer_s += time.perf_counter() - before
        return Batch(tensors, place_of(batch), None, *extras, mixed)

    def forget(self) -> None:
        """Do nothing: no batch is staged ahead."""

    def close(self) -> None:
        """Do nothing: no slot outlives the call that read it, unless the caller holds it."""


def place_of(batch: augd.Batch) -> tuple[int, int, int]:
    """Return epoch, number and position of a batch."""
    return batch.epoch, batch.number, batch.position


def range_of(labels: NDArray[Any]) -> LabelRange:
    """Return the lowest and the highest label."""
    return labels.min().item(), labels.max().item()


def for_views(pixels: Pixels, convert: Callable[[str, Tensor], Tensor]) -> Pixels:
    """Convert pixels, or those of each view by name; the name is empty without views."""
    if isinstance(pixels, Tensor):
        return convert("", pixels)
    return {name: convert(name, one) for name, one in pixels.items()}


def of_view(colour: Pixels | None, name: str) -> Tensor | None:
    """Return the colour matrices of the views of a name."""
    return colour if colour is None or isinstance(colour, Tensor) else colour[name]


def colour_of(batch: augd.Batch) -> Pixels | None:
    """Copy a batch's colour matrices, if colours are left to the device; else None."""
    if isinstance(batch.colour, Mapping):
        return {name: torch.tensor(matrices) for name, matrices in batch.colour.items()}
    return None if batch.colour is None else torch.tensor(batch.colour)


def params_of(batch: augd.Batch) -> Params:
    """Copy the parameters drawn for the rows of a batch, if its stream has them."""
    if batch.params is None:
        return None
    if batch.views:
        return {view: _as_tensors(params) for view, params in batch.params.items()}
    return _as_tensors(batch.params)


def _as_tensors(params: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.tensor(numbers) for name, numbers in params.items()}


def views(batch: augd.Batch) -> Tensors:
    """Make tensors of a slot's arrays, without a copy; those of a shared stream are read-only."""
    if batch.ids.flags.writeable:
        return _tensors_of(batch)
    with warnings.catch_warnings():
        # torch has no read-only tensors. Writing to these raises SIGSEGV, as intended.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return _tensors_of(batch)


def _tensors_of(batch: augd.Batch) -> Tensors:
    labels, ids, valid = map(torch.from_numpy, (batch.labels, batch.ids, batch.valid))
    if batch.views:
        named = {name: torch.from_numpy(rows) for name, rows in batch.views.items()}
        return named, labels, ids, valid
    return torch.from_numpy(batch.images), labels, ids, valid
