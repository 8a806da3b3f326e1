"""Mixes the rows of a batch of tensors, as the `mix` of its recipe says.

Runs in the training process, after a batch was normalised: on its device, and on CUDA on the
consumer's stream. `augd.Mixing` says what is mixed; `augd` computes it, and mixes NumPy batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import augd

# As augd mixes bytes: shares are multiples of 2**-16, halves are rounded up.
_STEPS = 16


@dataclass(frozen=True, slots=True)
class TensorMixing:
    """How the rows of a batch are mixed, on the CPU, with its targets.

    Attributes:
        mixing: partners, shares and boxes as NumPy arrays.
        targets: float32 (B, K).
    """

    mixing: augd.Mixing
    targets: Tensor

    def to(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return targets, partners and share on a device."""
        partners = torch.from_numpy(self.mixing.partners)
        share = torch.from_numpy(self.mixing.share)
        targets, partners, share = (
            one.to(device, non_blocking=True) for one in (self.targets, partners, share)
        )
        return targets, partners, share


def mixing_of(batch: augd.Batch) -> TensorMixing | None:
    """Return how a batch of an unmixed stream is to be mixed; None without `mix`."""
    if batch.mixing is None or batch.targets is None:
        return None
    return TensorMixing(batch.mixing, torch.from_numpy(batch.targets))


def mix_rows(images: Tensor, mixing: augd.Mixing) -> Tensor:
    """Return mixed images in memory of their own; those of rows that are not mixed are equal.

    `images` is float (B, [V,] 3, H, W), or uint8 (B, [V,] H, W, 3). Floats are blended in their own
    dtype, bytes rounded to the nearest grey level.
    """
    is_bytes = images.dtype == torch.uint8
    height, width = images.shape[-3:-1] if is_bytes else images.shape[-2:]
    changed = mixing.partners != range(len(mixing.partners))
    mixed = images.clone()
    blended = torch.from_numpy((changed & ~mixing.is_cut).nonzero()[0])
    if len(blended):
        _blend(images, mixed, blended, mixing)
    boxes = mixing.pixels(int(height), int(width)).tolist()
    for row in mixing.is_cut.nonzero()[0].tolist():
        x1, y1, x2, y2 = boxes[row]
        partner = int(mixing.partners[row])
        if is_bytes:
            mixed[row, ..., y1:y2, x1:x2, :] = images[partner, ..., y1:y2, x1:x2, :]
        else:
            mixed[row, ..., y1:y2, x1:x2] = images[partner, ..., y1:y2, x1:x2]
    return mixed


def _blend(images: Tensor, mixed: Tensor, rows: Tensor, mixing: augd.Mixing) -> None:
    """Blend some rows of `images` with their partners, into `mixed`."""
    share = torch.from_numpy(mixing.share)[rows]
    others = torch.from_numpy(mixing.partners)[rows].to(images.device)
    rows = rows.to(images.device)
    shape = (-1, *[1] * (images.dim() - 1))
    own, other = images[rows], images[others]
    if images.dtype != torch.uint8:
        weight = share.to(images.device, images.dtype).view(shape)
        mixed[rows] = torch.lerp(other, own, weight)
        return
    weight = (share.double() * (1 << _STEPS)).round().int().to(images.device).view(shape)
    total = own.int() * weight + other.int() * ((1 << _STEPS) - weight)
    mixed[rows] = ((total + (1 << (_STEPS - 1))) >> _STEPS).to(torch.uint8)
