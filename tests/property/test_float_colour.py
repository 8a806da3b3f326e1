"""PCA noise measured on what is delivered, in float: rows and matrices as a trainer applies them.

`test_planner_laws` holds plans against the law, and its check against the known wrong versions.
Here the same check looks at pixels: what `colour_on="device"` sends, applied unrounded, less the
row itself.
"""

from __future__ import annotations

import numpy as np
import pytest

from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from tests.property.test_planner_laws import VALUES, VECTORS, assert_pca_noise
from tests.support.plans import plan_of

NUM = 20_000
SIDE = 4
SIZE = {"op": "resize", "size": SIDE}


def added_in_float(*ops: dict) -> np.ndarray:
    """Return what was added to each of NUM rows, mean of its pixels, (NUM, 3) grey levels."""
    photo = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    plan = plan_of([SIZE, *ops], num=NUM, size=(SIDE, SIDE), colour_on="device")
    row_plans = RowPlans(plan, 0, NUM)
    renderer = Renderer("antialias", (SIDE, SIDE), colour_on="device")
    row, colour = np.empty((SIDE, SIDE, 3), np.uint8), np.empty((3, 4), np.float32)
    added = np.empty((NUM, 3))
    for number in range(NUM):
        renderer.render(photo, row_plans[number], row, colour)
        assert (row == photo).all()
        pixels = row.reshape(-1, 3).astype(np.float64)
        applied = pixels @ colour[:, :3].T.astype(np.float64) + colour[:, 3]
        added[number] = (applied - pixels).mean(axis=0)
    return added


@pytest.mark.parametrize(("mode", "sizes"), [("eigval", VALUES), ("stdev", np.sqrt(VALUES))])
def test_pixels_get_the_three_components_in_their_directions(mode, sizes):
    added = added_in_float({"op": "pca", "mode": mode})
    assert_pca_noise(added, sizes)
    covariance = np.cov(added.T)
    exact = VECTORS @ np.diag((0.1 * 255 * sizes) ** 2) @ VECTORS.T
    # Each entry's standard error, of normal noise: sqrt((c_ii c_jj + c_ij^2) / n).
    scale = np.outer(np.diag(exact), np.diag(exact))
    error = np.sqrt((scale + exact**2) / NUM)
    assert (np.abs(covariance - exact) < 5.5 * error).all()


def test_noise_that_was_rounded_to_grey_levels_has_lost_its_small_components():
    """Why it is measured in float: the third component is 0.1 levels, less than any step."""
    added = added_in_float({"op": "pca"})
    assert (added @ VECTORS[:, 2]).std() < 0.2
    with pytest.raises(AssertionError):
        assert_pca_noise(np.rint(added), VALUES)
