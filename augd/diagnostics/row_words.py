"""The random words of one row, as the planner gives them to an op's sampler.

Used by readers of what an op drew, where a plan holds only its combined effect.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from augd.plan.random.philox import Ints, philox_words, stream_counter


def draw_words(
    key: int, place: int, draws: Iterable[int], sample: int, epoch: int, view: int
) -> tuple[Ints, Ints]:
    """Draw the blocks `draws` of an op's place; even and odd as samplers read them, of one row."""
    ids = np.array([sample], np.uint64)
    blocks = [
        philox_words(key, ids, epoch, stream_counter(place, view, draw)).astype(np.int64)
        for draw in draws
    ]
    words = np.stack(blocks, axis=1)
    return words[[2, 0]], words[[3, 1]]
