"""Own ops for augd: a vignette, which edits finished rows, and a slant, which gives a matrix.

augd serve photos/ --plugin examples.own_ops

and in the trainer's recipe:

    {"op": "slant", "most": 0.2}, {"op": "vignette", "strength": [0.2, 0.8], "p": 0.5}
"""

from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from augd import OpRandom, Plugin, SampleInfo

Share = Annotated[float, Meta(ge=0, le=1)]


class Vignette(Plugin, frozen=True):
    """Darken a row towards its corners, by a share drawn from `strength`."""

    strength: tuple[Share, Share] = (0.2, 0.8)

    def sample(self, rng: OpRandom, info: SampleInfo) -> float:
        """Draw how much of the light the corners lose."""
        return rng.uniform(*self.strength)

    def pixels(self, row: Any, params: float) -> None:
        """Multiply each pixel by 1 - params * (distance from the centre / the corner's) ** 2."""
        height, width, _ = row.shape
        y = ((np.arange(height) + 0.5) / height * 2 - 1)[:, None, None]
        x = ((np.arange(width) + 0.5) / width * 2 - 1)[None, :, None]
        row[...] = np.rint(row * (1 - params * (x * x + y * y) / 2))


class Slant(Plugin, frozen=True):
    """Move each line sideways in proportion to its height above the lower edge."""

    most: Annotated[float, Meta(ge=0, le=2)] = 0.2

    def sample(self, rng: OpRandom, info: SampleInfo) -> float:
        """Draw how far, in pixels to the side for each pixel upwards."""
        return rng.uniform(-self.most, self.most)

    def matrix(self, params: float, info: SampleInfo) -> Any:
        """Say where the pixel at (x, y) comes from: the same line, so much further left."""
        # x - params * (frame_height - y): the lower edge stays where it is.
        return [[1, params, -params * info.frame_height], [0, 1, 0], [0, 0, 1]]
