"""Displacement fields: lens and local warp."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from augd.pixels.displacement import LocalWarper, _weights, displace_by_lens, lens_grid
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlan
from augd.plan.plan import LocalWarpField
from tests.support.examples import examples
from tests.support.reference import WARP_BOUND, centres, sampled

pytestmark = pytest.mark.usefixtures("kernels")

SIZE = (96, 128)
# In 1/4096 px.
KNOWN_FIELD = [
    [
        [-5096, -17957, -35754, -48417, -51852, -50478],
        [-13413, -22293, -34489, -42783, -44336, -42702],
        [-25491, -28746, -32985, -35002, -33761, -31667],
        [-34258, -33548, -32149, -29671, -26373, -23894],
    ],
    [
        [-31163, -34618, -32502, -18011, 4617, 21799],
        [-25366, -28834, -27927, -16669, 1689, 15789],
        [-16352, -19832, -20696, -14209, -2170, 7363],
        [-9424, -12901, -15058, -12085, -4714, 1439],
    ],
]
UNIT = ((1.0, 0.0), (0.0, 1.0))


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def field(
    key: int, alpha: float, sigma: float, size: tuple[int, int] = SIZE
) -> NDArray[np.float64]:
    maps = np.zeros((2, *size), np.float32)
    LocalWarper(LocalWarpField(alpha, sigma), size).add(maps, key, UNIT)
    return maps.astype(np.float64)


def lens_motion(k: float, size: tuple[int, int] = SIZE) -> tuple[NDArray, NDArray]:
    """Return each pixel centre's place about the output's centre, and where the lens reads it."""
    x, y = centres(size)
    before = np.stack([x - size[1] / 2, y - size[0] / 2])
    maps = before.astype(np.float32)
    displace_by_lens(maps, lens_grid(size), k, np.empty(size, np.float32))
    return before, maps.astype(np.float64)


@pytest.mark.parametrize("k", [-0.3, -0.05, 0.05, 0.2])
def test_a_lens_moves_along_the_radius_by_its_law(k: float) -> None:
    before, after = lens_motion(k)
    r_before, r_after = np.hypot(*before), np.hypot(*after)
    r_max = np.hypot(*SIZE) / 2
    np.testing.assert_allclose(r_after, r_before * (1 + k * (r_before / r_max) ** 2), rtol=1e-6)
    across = before[0] * after[1] - before[1] * after[0]
    assert np.abs(across).max() < 1e-3
    assert ((before * after).sum(axis=0) > 0).all()


def test_a_lens_leaves_the_centre_where_it_is() -> None:
    size = (33, 45)
    image = noise(*size)
    out = np.empty((*size, 3), np.uint8)
    row_plan = RowPlan(matrix=np.eye(2, 3).tolist(), lens=-0.4)
    Renderer("linear", size).render(image, row_plan, out)
    assert (out[16, 22] == image[16, 22]).all()
    assert (out != image).any()


def test_a_field_is_the_same_for_the_same_key_only() -> None:
    warper = LocalWarper(LocalWarpField(30.0, 4.0), SIZE)
    first = np.zeros((2, *SIZE), np.float32)
    warper.add(first, 2**64 - 1, UNIT)
    for key in (0, 1, 2**32, 2**63):
        other = np.zeros((2, *SIZE), np.float32)
        warper.add(other, key, UNIT)
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.15
    assert (field(2**64 - 1, 30.0, 4.0) == first).all()


def test_a_field_of_known_numbers() -> None:
    """Frozen: a change here changes the bytes of every stream with a local_warp."""
    found = field(0x0123456789ABCDEF, 64.0, 2.0, (4, 6))
    assert (np.rint(found * 2**12).astype(int) == KNOWN_FIELD).all()


@pytest.mark.parametrize("sigma", [1.0, 4.0, 10.0])
def test_a_field_has_the_mean_and_spread_of_smoothed_uniform_noise(sigma: float) -> None:
    """Variance 1/3, times the sum of the squared weights of a Gaussian on both axes."""
    found = np.stack([field(key, 100.0, sigma) for key in range(40)])
    places = np.arange(-40, 41)
    weights = np.exp(-0.5 * (places / sigma) ** 2)
    weights /= weights.sum()
    spread = 100.0 * np.sqrt(1 / 3) * (weights**2).sum()
    inner = found[:, :, 30:-30, 30:-30]
    assert abs(inner.std() / spread - 1) < 0.1
    assert abs(found.mean()) < 4 * 100 * np.sqrt(1 / 3) / np.sqrt(found.size)
    assert np.abs(found).max() <= 100.0
    # x and y are two fields.
    both = np.corrcoef(inner[:, 0].ravel(), inner[:, 1].ravel())[0, 1]
    assert abs(both) < 0.1


@pytest.mark.parametrize("sigma", [2.0, 4.0, 10.0])
def test_a_field_is_smooth(sigma: float) -> None:
    """Neighbours are correlated as a Gaussian says: exp(-1 / (4 sigma**2))."""
    found = np.stack([field(key, 1.0, sigma) for key in range(20)])
    steps = np.diff(found, axis=-1).var() / found.var()
    assert abs(steps / (2 * (1 - np.exp(-1 / (4 * sigma**2)))) - 1) < 0.2


@examples(60)
@given(st.floats(0.05, 300.0))
def test_weights_are_whole_even_and_a_gaussian(sigma: float) -> None:
    weights = _weights(sigma).astype(np.float64)
    assert weights.sum() == 4096 and (weights == np.rint(weights)).all() and weights.min() >= 0
    assert (weights == weights[::-1]).all()
    places = np.arange(len(weights)) - len(weights) // 2
    exact = np.exp(-0.5 * (places / sigma) ** 2)
    assert np.abs(weights - exact / exact.sum() * 4096).max() <= 2.0


def test_a_field_of_any_size() -> None:
    for size in ((1, 1), (1, 9), (7, 1), (3, 5)):
        found = field(5, 10.0, 6.0, size)
        assert np.isfinite(found).all() and np.abs(found).max() <= 10.0


def test_lens_and_warp_and_matrix_are_one_resample() -> None:
    """Position plus lens plus field, through the matrix, sampled once."""
    image = np.repeat(np.kron(noise(13, 16)[..., :1], np.ones((10, 10, 1), np.uint8)), 3, axis=2)
    matrix = np.array([[0.8, -0.3, 40.0], [0.2, 0.9, 5.0]])
    row_plan = RowPlan(
        matrix=matrix.tolist(), lens=-0.2, warp=LocalWarpField(60.0, 6.0), warp_key=77
    )
    out = np.empty((*SIZE, 3), np.uint8)
    Renderer("linear", SIZE).render(image, row_plan, out)
    before, bent = lens_motion(-0.2)
    displaced = centres(SIZE) + (bent - before) + field(77, 60.0, 6.0)
    x, y = np.einsum("ij,jhw->ihw", matrix[:, :2], displaced) + matrix[:, 2, None, None]
    assert np.abs(out - sampled(image, x, y, "reflect")).max() <= WARP_BOUND
