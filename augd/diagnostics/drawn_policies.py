"""What a policy drew for one row: the ops that were applied, their numbers and levels.

Used by `drawn_params`. A plan holds only the combined effect of a policy's layers. So the policy's
own sampler is called with the row's words, as for a chunk, before they are applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from augd.diagnostics.row_words import draw_words
from augd.plan.geometry.frame import Frame
from augd.plan.ops.policies import Policy
from augd.plan.ops.policy_tables import PolicyOp
from augd.plan.plan import MIX_UNIT
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints
from augd.plan.samplers.all_samplers import sampler_of
from augd.plan.samplers.aug_mix import AugMixSampler
from augd.plan.samplers.policies import PolicySampler
from augd.plan.samplers.policy_layer import DrawnLayer

# What an op's number is called.
_NUMBER_NAMES: Final = {
    PolicyOp.SHEAR_X: "shear",
    PolicyOp.SHEAR_Y: "shear",
    PolicyOp.TRANSLATE_X: "pixels",
    PolicyOp.TRANSLATE_Y: "pixels",
    PolicyOp.ROTATE: "degrees",
    PolicyOp.BRIGHTNESS: "factor",
    PolicyOp.COLOR: "factor",
    PolicyOp.CONTRAST: "factor",
    PolicyOp.SHARPNESS: "factor",
    PolicyOp.POSTERIZE: "bits",
    PolicyOp.SOLARIZE: "threshold",
    PolicyOp.SOLARIZE_ADD: "add",
    PolicyOp.CUTOUT: "half_side",
    PolicyOp.BLUR: "sigma",
}


class PolicyReader:
    """Reads what the policy at one place of a recipe draws for rows of `out_size`."""

    def __init__(self, op: Policy, key: int, place: int, out_size: tuple[int, int]) -> None:
        """Take the policy and its place; `out_size` is (height, width)."""
        sampler = sampler_of(op)
        assert isinstance(sampler, PolicySampler | AugMixSampler)
        self._sampler = sampler
        self._key, self._place = key, place
        self._draws = range(sampler.num_blocks)
        self._sides: Floats = np.array(out_size[::-1], np.float64)[:, None]

    def read(self, sample: int, epoch: int, view: int) -> dict[str, Any] | None:
        """Return the layers that were applied, in their order; None if there were none.

        Of `aug_mix` return the weights of the image and of the chains, each with its layers.
        """
        even, odd = draw_words(self._key, self._place, self._draws, sample, epoch, view)
        frame = Frame(self._sides, self._sides)
        if isinstance(self._sampler, AugMixSampler):
            return self._read_mixture(self._sampler, frame, even, odd)
        applied = self._applied(self._sampler.draw(frame, even, odd))
        return {"layers": applied} if applied else None

    def _read_mixture(
        self, sampler: AugMixSampler, frame: Frame, even: Ints, odd: Ints
    ) -> dict[str, Any] | None:
        image, *weights = (sampler.draw_weights(even, odd)[0] / MIX_UNIT).tolist()
        if image == 1.0:
            return None
        chains = [
            {"weight": weight, "layers": self._applied(layers)}
            for weight, layers in zip(weights, sampler.draw(frame, even, odd), strict=True)
        ]
        return {"image": image, "chains": chains}

    def _applied(self, layers: Iterable[DrawnLayer]) -> list[Mapping[str, Any]]:
        return [self._plain(layer) for layer in layers if layer.op[0] != PolicyOp.IDENTITY]

    def _plain(self, layer: DrawnLayer) -> Mapping[str, Any]:
        op, number = PolicyOp(int(layer.op[0])), float(layer.number[0])
        plain: dict[str, Any] = {"op": op.name.lower()}
        if op not in _NUMBER_NAMES:
            return plain
        plain[_NUMBER_NAMES[op]] = number
        if op == PolicyOp.CUTOUT and layer.centre is not None:
            plain["centre"] = layer.centre[:, 0].tolist()
        if self._sampler.top_level is not None:
            plain |= {"level": float(layer.level[0]), "top_level": self._sampler.top_level}
        return plain
