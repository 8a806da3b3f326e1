"""Batches on a CUDA device: copied beside the CPU, and normalised on the device.

Runs in the training process. uint8 rows are copied from the slot itself, in the registered arena,
on a CUDA stream of their own. They become floats on the consumer's CUDA stream.
`trainer.data.copy_schedule` decides when. Nothing here waits for the device, except when the arena
is unregistered.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import augd

from .constants import IMAGENET, Constants
from .copy_schedule import NUM_BUFFERS, CopySchedule, Feed
from .host_feed import (
    Batch,
    LabelRange,
    Params,
    Pixels,
    Tensors,
    colour_of,
    fold,
    for_views,
    memory_format,
    of_view,
    ordinary_tensors,
    params_of,
    place_of,
    range_of,
    scale_and_shift,
    views,
)
from .mixing import TensorMixing, mix_rows, mixing_of

_cuda: Any = torch.cuda  # its classes are typed in some versions of torch, and not in others


class DeviceNormaliser:
    """uint8 (B, H, W, 3) to normalised floats in one kernel, on the current stream."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        channels_last: bool,
        constants: Constants = IMAGENET,
    ) -> None:
        self._dtype = dtype
        self._format = memory_format(channels_last)
        self._constants = tuple(one.to(device) for one in scale_and_shift(constants))
        self._scale, self._shift = (constant.view(1, 3, 1, 1) for constant in self._constants)

    def __call__(self, images: Tensor, colour: Tensor | None = None) -> Tensor:
        """Return (B, 3, H, W), or (B, V, 3, H, W) for views; freshly allocated.

        Computed in float32. `colour`, (B, 3, 4) or (B, V, 3, 4), is applied first, unclipped.
        """
        if images.dim() == 5:
            flat = None if colour is None else colour.flatten(0, 1)
            rows = self(images.flatten(0, 1), flat)
            return rows.view(*images.shape[:2], *rows.shape[1:])
        pixels = images.permute(0, 3, 1, 2)
        if colour is not None:
            return self._coloured(pixels, colour)
        out = torch.empty(
            pixels.shape, dtype=self._dtype, device=images.device, memory_format=self._format
        )
        return torch.addcmul(self._shift, pixels, self._scale, out=out)

    def _coloured(self, pixels: Tensor, colour: Tensor) -> Tensor:
        """Mix the channels explicitly: a matrix product could be computed in TF32."""
        scale, shift = self._constants
        matrices, offsets = fold(colour, scale, shift)
        mixed = offsets[:, :, None, None].expand(*pixels.shape)
        for channel in range(3):
            weights = matrices[:, :, channel, None, None]
            mixed = torch.addcmul(mixed, pixels[:, channel, None].float(), weights)
        return mixed.to(self._dtype, memory_format=self._format)


# cudaHostRegisterReadOnly, of driver_types.h
_READ_ONLY = 8


class PinnedArena:
    """An arena registered with CUDA, so that copies out of it run beside the CPU."""

    def __init__(self, arena: memoryview, cudart: Any) -> None:
        """Register it; if CUDA refuses, warn and copy from unpinned memory."""
        self.arena = arena
        self._cudart = cudart
        self._root = np.frombuffer(arena, np.uint8)  # keeps the pages mapped till `close`
        flags = _READ_ONLY if arena.readonly else 0  # a shared one is mapped for reading only
        error = cudart.cudaHostRegister(self._root.ctypes.data, self._root.nbytes, flags)
        self.is_pinned = int(error) == 0
        if not self.is_pinned:
            _forget_last_error()
            warnings.warn(
                f"CUDA did not register the arena of {self._root.nbytes / 1e6:.0f} MB "
                f"({error}): copies to the GPU are not pinned, which is slower and blocks the "
                "CPU. A limit on locked memory (ulimit -l) is the usual reason.",
                RuntimeWarning,
                stacklevel=2,
            )

    def close(self) -> None:
        """Unregister it; no copy may be running."""
        if self.is_pinned:
            self.is_pinned = False
            self._cudart.cudaHostUnregister(self._root.ctypes.data)


def try_pinning() -> str:
    """Say whether CUDA registers shared memory here: "pinned", "not pinned" or "no device"."""
    if not _cuda.is_available():
        return "no device"
    with warnings.catch_warnings(), mmap.mmap(-1, mmap.PAGESIZE) as arena:  # shared, as arenas are
        warnings.simplefilter("ignore")
        pinned = PinnedArena(memoryview(arena), _cuda.cudart())
        is_pinned = pinned.is_pinned
        pinned.close()
        del pinned
    return "pinned" if is_pinned else "not pinned"


def _forget_last_error() -> None:
    """Clear CUDA's last error, which the next kernel's check would report otherwise.

    torch exports no cudaGetLastError, but checks, and so clears, it after every launch.
    """
    if _cuda.is_available():
        try:
            torch.ones(1, device="cuda")
        except RuntimeError:
            return


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A batch's tensors on the device, valid after the event `copied`."""

    tensors: Tensors
    colour: Pixels | None
    params: Params
    copied: torch.cuda.Event
    place: tuple[int, int, int]
    label_range: LabelRange
    mixing: TensorMixing | None


def _each(pixels: Pixels | None) -> Iterable[Tensor]:
    """Return the tensors of all views."""
    if pixels is None:
        return ()
    return (pixels,) if isinstance(pixels, Tensor) else pixels.values()


class CudaCopier:
    """Copies on a side stream, normalises on the consumer's; a `copy_schedule.DeviceCopier`."""

    def __init__(
        self,
        device: torch.device,
        normaliser: DeviceNormaliser | None,
        arena: Callable[[], memoryview],
    ) -> None:
        """Allocate nothing yet: the first batch decides the size of a buffer."""
        self._device = device
        self._normaliser = normaliser
        self._arena = arena
        self._side = _cuda.Stream(device)
        self._buffers: dict[tuple[int, str], Tensor] = {}  # by the ring's buffer and view
        self._read = [_cuda.Event() for _ in range(NUM_BUFFERS)]
        self._pinned: PinnedArena | None = None

    def copy(self, batch: augd.Batch, buffer: int) -> tuple[OnDevice, torch.cuda.Event]:
        """Issue the copies out of the slot; they wait for the buffer's last reader."""
        self._pin()
        with ordinary_tensors(), _cuda.stream(self._side):
            try:
                tensors = self._issue(views(batch), buffer)
                colour = colour_of(batch)
                if colour is not None:  # 48 bytes a row: not worth pinning
                    colour = for_views(colour, lambda _, one: one.to(self._device))
            except BaseException:
                self._side.synchronize()  # out of memory at the labels: the images' copy still runs
                raise
            copied = _cuda.Event()
            copied.record(self._side)
        label_range = range_of(batch.labels)
        extras = copied, place_of(batch), label_range, mixing_of(batch)
        return OnDevice(tensors, colour, params_of(batch), *extras), copied

    def _issue(self, views: Tensors, buffer: int) -> Tensors:
        images, labels, ids, valid = views
        if self._normaliser is None:
            images = for_views(images, lambda _, one: one.to(self._device, non_blocking=True))
        else:
            self._side.wait_event(self._read[buffer])
            images = for_views(
                images,
                lambda name, one: self._buffer(buffer, name, one).copy_(one, non_blocking=True),
            )
        labels, ids = (tensor.to(self._device, non_blocking=True) for tensor in (labels, ids))
        return images, labels, ids, valid.to(self._device, non_blocking=True)

    def finish(self, copied: OnDevice, buffer: int) -> Batch:
        """Order the consumer's stream behind the copies and normalise on it."""
        consumer = _cuda.current_stream(self._device)
        consumer.wait_event(copied.copied)
        images, labels, ids, valid = copied.tensors
        colour, normaliser = copied.colour, self._normaliser
        for tensor in (*_each(images), labels, ids, valid, *_each(colour)):
            # Allocated on the side stream, which must not reuse it before it was read here.
            tensor.record_stream(consumer)
        if normaliser is not None:
            with ordinary_tensors():
                images = for_views(images, lambda name, one: normaliser(one, of_view(colour, name)))
            self._read[buffer].record(consumer)
        mixed = None
        if copied.mixing is not None:
            with ordinary_tensors():
                plan = copied.mixing.mixing
                images = for_views(images, lambda _, one: mix_rows(one, plan))
                mixed = copied.mixing.to(self._device)
        extras = copied.params, copied.label_range, mixed
        return Batch((images, labels, ids, valid), copied.place, None, *extras)

    def _buffer(self, buffer: int, view: str, images: Tensor) -> Tensor:
        """Return rows of the ring's buffer; the first batch of a size is its largest."""
        whole = self._buffers.get((buffer, view))
        if whole is None or len(whole) < len(images) or whole.shape[1:] != images.shape[1:]:
            whole = torch.empty(images.shape, dtype=torch.uint8, device=self._device)
            self._buffers[buffer, view] = whole
        return whole[: len(images)]

    def _pin(self) -> None:
        arena = self._arena()
        if self._pinned is None or self._pinned.arena is not arena:
            self._unpin()
            with _cuda.device(self._device):
                self._pinned = PinnedArena(arena, _cuda.cudart())

    def _unpin(self) -> None:
        if self._pinned is not None:
            self._side.synchronize()
            self._pinned.close()
            self._pinned = None

    def close(self) -> None:
        """Wait for the running copies and unregister the arena."""
        self._unpin()


class CudaFeed(Feed[OnDevice, Batch]):
    """The passes over a stream whose batches go to a CUDA device."""

    def __init__(self, stream: augd.Stream, copier: CudaCopier, max_in_flight: int) -> None:
        """Take over the copier: `close` closes it."""
        super().__init__(stream, CopySchedule(copier, max_in_flight))
        self._copier = copier

    def close(self) -> None:
        """Release every slot once its copy is done, then unregister the arena."""
        try:
            super().close()
        finally:
            self._copier.close()
