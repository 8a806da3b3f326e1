"""How the images of a batch are mixed: the `mix` of a recipe, as validated plain data.

The client mixes, or the trainer on its device; producers make every row unmixed. What is drawn for
a batch is computed by `augd/plan/mix_draws.py`.

Invariants: nothing here draws a number or imports NumPy.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# Beyond it every share is one half, to within a grey level.
ALPHA_MAX = 1000.0


class Mix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mixup and CutMix of the rows of a batch, with their soft targets.

    `mixup` and `cutmix` are the alphas of Beta(alpha, alpha); 0 leaves one out. `switch` is the
    probability of CutMix where both are on; `prob` that of mixing at all. From epoch `off_epoch` on
    nothing is mixed.

    `scope` says how often is drawn: once for a "batch", for each "pair" of rows 2k and 2k + 1,
    which are then each other's partners, or for each "row". `partner` says which row is mixed in:
    "flip" B - 1 - i (timm), "roll" i - 1 (torchvision), or a "permutation" (Zhang et al. 2018).

    `smoothing` spreads that share of each one-hot target over all classes, before the mixing
    (Szegedy et al. 2016, section 7).

    Sources: Zhang et al. 2018 (mixup); Yun et al. 2019 (CutMix), whose box and corrected share are
    timm's and torchvision's, too.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    switch: float = 0.5
    scope: Literal["batch", "pair", "row"] = "batch"
    partner: Literal["flip", "roll", "permutation"] = "flip"
    prob: float = 1.0
    off_epoch: int | None = None
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        for field in ("mixup", "cutmix"):
            alpha = getattr(self, field)
            if not 0 <= alpha <= ALPHA_MAX:
                raise ValueError(
                    f"{field}: expected 0 <= {field} <= {ALPHA_MAX:g}, got {alpha}. Give the alpha "
                    "of Beta(alpha, alpha); 0 leaves it out."
                )
        for field in ("switch", "prob"):
            share = getattr(self, field)
            if not 0 <= share <= 1:
                raise ValueError(
                    f"{field}: expected 0 <= {field} <= 1, got {share}. Give a probability."
                )
        if not 0 <= self.smoothing < 1:
            raise ValueError(
                f"smoothing: expected 0 <= smoothing < 1, got {self.smoothing}. Give the share of "
                "a target that is spread over all classes, 0.1 for example."
            )
        if self.off_epoch is not None and self.off_epoch < 0:
            raise ValueError(
                f"off_epoch: expected 0 or more, got {self.off_epoch}. Give the first epoch "
                "without mixing."
            )
        if not self.mixup and not self.cutmix and not self.smoothing:
            raise ValueError(
                "mixup: expected an alpha above 0 here or in cutmix, or a smoothing, got none of "
                "them. Take mix out of the recipe, or give for example mixup=0.2."
            )
        if self.scope == "pair" and self.partner != "flip":
            raise ValueError(
                f'partner: expected none beside scope="pair", whose rows 2k and 2k + 1 are '
                f'partners, got "{self.partner}". Take partner out.'
            )
