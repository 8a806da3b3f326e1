"""Reductions by whole recipes: flat, straight and sharp images at 2 and 3.1 to 1.

Each row is planned, decoded as the plan says and rendered, on the exact path, the matrix path and
the path of warps: nothing may alias, gain, lose or move.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.recipe.recipe import parse_recipe
from tests.support.plans import plan_of

SIDE = 60
RESIZE = {"op": "resize", "size": SIDE}
PATHS = {
    "exact": [RESIZE],
    "affine": [RESIZE, {"op": "rotate", "degrees": 1e-9}],
    # A lens and a warp that move by less than a thousandth of a pixel.
    "warps": [
        RESIZE,
        {"op": "lens", "k": [1e-6, 1e-5]},
        {"op": "local_warp", "alpha": 0.001, "sigma": 2},
    ],
    "turned": [RESIZE, {"op": "rotate", "degrees": 30}],
}
REDUCTIONS = [2.0, 3.1]


def row_of(path: str, reduction: float, paint) -> tuple[NDArray[np.float64], NDArray]:
    """Return one channel of the row, and its matrix from positions of the row to the image."""
    side = round(SIDE * reduction)
    y, x = np.mgrid[:side, :side]
    image = np.repeat(np.rint(paint(x, y)).astype(np.uint8)[..., None], 3, axis=2)
    plan = plan_of(PATHS[path], size=(side, side))
    assert (plan.bent is None) == (path == "exact")
    row_plans = RowPlans(plan, 0, 1)
    left, top, width, height = row_plans.crop[0]
    out = np.empty((SIDE, SIDE, 3), np.uint8)
    renderer = Renderer.of(parse_recipe({"ops": PATHS[path]}), (SIDE, SIDE))
    renderer.render(image[top : top + height, left : left + width], row_plans[0], out)
    matrix = np.diag([reduction, reduction, 1])[:2] if plan.matrix is None else plan.matrix[0]
    return out[..., 0].astype(float), matrix


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_a_checkerboard_becomes_flat_grey(path, reduction):
    found, _ = row_of(path, reduction, lambda x, y: (x + y) % 2 * 255)
    # 127.5; half a level up with each rounding. A turned row's corners show the fill.
    assert np.abs(found[10:-10, 10:-10] - 127.5).max() <= 1.5


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_lines_of_one_pixel_become_flat_grey(path, reduction):
    """On the exact path a triangle leaves sinc(reduction / 2) ** 2, twice as it is sampled."""
    found, _ = row_of(path, reduction, lambda x, y: x % 2 * 255)
    left = 2 * 127.5 * np.sinc(reduction / 2) ** 2 if path == "exact" else 0.0
    assert np.abs(found[10:-10, 10:-10] - 127.5).max() <= left + 1.5


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_a_ramp_stays_where_it_is(path, reduction):
    """A shift by a tenth of the row's pixel would be a tenth of a slope of 0.9 to 2.2 levels."""
    side = round(SIDE * reduction)
    slope = 130 / side

    def plane(x, y):
        return 20 + slope * (x + 0.5) + 0.6 * slope * (y + 0.5)

    found, matrix = row_of(path, reduction, plane)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    at_x, at_y = np.einsum("ij,jhw->ihw", matrix, np.stack([x, y, np.ones_like(x)]))
    exact = plane(at_x - 0.5, at_y - 0.5)
    error = (found - exact)[12:-12, 12:-12]
    # The image was rounded, halvings round half a level up at most, and the row is rounded.
    assert np.abs(error).max() <= 1.6
    assert -0.1 < error.mean() < 0.6


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_a_point_keeps_its_weight_and_place(path, reduction):
    """A block of 4 x 4, since a single pixel is less than a level after two roundings."""
    side = round(SIDE * reduction)
    at = side // 2 - 1

    def point(x, y):
        return 255 * ((np.abs(x - at - 1.5) < 2) & (np.abs(y - at + 2.5) < 2))

    found, matrix = row_of(path, reduction, point)
    weight = 16 * 255 / reduction**2
    # Bilinear samples in steps of a fraction of a pixel do not weigh all pixels alike.
    assert abs(found.sum() - weight) < (0.12 if path == "turned" else 0.05) * weight
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    centre = np.array([(found * x).sum(), (found * y).sum(), found.sum()]) / found.sum()
    place = matrix @ centre
    assert np.abs(place - [at + 2.0, at - 2.0]).max() < 0.25 * reduction
