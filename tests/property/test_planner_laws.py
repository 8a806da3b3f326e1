"""The laws that plans follow: distributions, and independence of what lies beside a row.

Each bound is one that the right law passes but once in a million times; the seeds are fixed.
The check of PCA noise is itself checked: the known wrong versions must fail it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augd.plan.ops.all_ops import IMAGENET_EIGVAL, IMAGENET_EIGVEC
from augd.plan.planner.planner import Plan, Planner
from augd.plan.recipe.recipe import output_size, parse_recipe
from tests.support.examples import examples
from tests.support.laws import RARE, assert_counts, assert_independent, assert_rate, assert_uniform

NUM = 20_000


def plan_of(ops, size=(1024, 1024), num=NUM, seed=1, first_size_px=None, epoch=0) -> Plan:
    recipe = parse_recipe({"ops": ops})
    planner = Planner(recipe, seed, output_size(recipe, first_size_px or size))
    widths, heights = (np.full(num, side, np.int32) for side in size)
    return planner.plan(np.arange(num), np.full(num, epoch, np.int64), widths, heights)


@pytest.fixture(scope="module")
def unrejected() -> tuple[np.ndarray, np.ndarray]:
    """Area and aspect as shares of their ranges, where every first try fits."""
    crop = {"op": "random_resized_crop", "scale": [0.08, 0.74]}
    _, _, width, height = plan_of([crop]).crop.T.astype(float)
    area = (width * height / 1024**2 - 0.08) / 0.66
    aspect = np.log(width / height) / np.log(4 / 3) / 2 + 0.5
    return area, aspect


def test_crop_area_is_uniform(unrejected):
    assert_uniform(unrejected[0])


def test_crop_aspect_is_uniform_in_its_logarithm(unrejected):
    assert_uniform(unrejected[1])


def test_crop_area_and_aspect_are_independent(unrejected):
    assert_independent(*unrejected)


def test_the_checks_of_the_crop_tell_other_laws(unrejected):
    area, aspect = unrejected
    with pytest.raises(AssertionError):
        assert_uniform((np.exp(aspect * np.log(4 / 3)) - 1) * 3)  # aspect itself uniform
    with pytest.raises(AssertionError):
        assert_uniform((np.sqrt(area * 0.66 + 0.08) - math.sqrt(0.08)) / 0.577)  # height uniform
    with pytest.raises(AssertionError):
        assert_independent(area, area + aspect)


def test_crop_takes_the_known_mean_share_of_a_photo():
    """TensorFlow's law would give .371 on 500x375; ours is known to give .433."""
    crop = plan_of([{"op": "random_resized_crop"}], (500, 375)).crop
    share = crop[:, 2] * crop[:, 3] / (500 * 375)
    assert abs(share.mean() - 0.433) < 0.0005 + RARE * share.std() / math.sqrt(NUM)


def test_crop_positions_are_even_and_reach_both_ends():
    crop = {"op": "random_resized_crop", "scale": [0.81, 0.81], "ratio": [1, 1]}
    x, y, width, height = plan_of([crop], (100, 105)).crop.T
    assert set(width) == set(height) == {92}
    for position, room in ((x, 100 - 92), (y, 105 - 92)):
        counts = np.bincount(position, minlength=room + 1)
        assert len(counts) == room + 1
        assert_counts(counts)


def test_crop_position_is_independent_of_size_and_of_the_other_axis():
    crop = plan_of([{"op": "random_resized_crop", "scale": [0.08, 0.5]}]).crop.astype(float)
    x, y = crop[:, 0] / (1024 - crop[:, 2]), crop[:, 1] / (1024 - crop[:, 3])
    assert_uniform(x)
    assert_uniform(y)
    assert_independent(x, y)
    assert_independent(x, crop[:, 2])


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_mirror_follows_its_rate(p):
    assert_rate(plan_of([{"op": "mirror", "p": p}]).mirror, p)


def test_mirrors_of_one_sample_in_successive_epochs_are_independent():
    epochs = [plan_of([{"op": "mirror"}], epoch=epoch).mirror for epoch in range(3)]
    for mirror in epochs:
        assert_rate(mirror, 0.5)
        assert_counts(np.bincount(2 * mirror[:-1] + mirror[1:], minlength=4))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert_counts(np.bincount(2 * epochs[a] + epochs[b], minlength=4))


def test_ops_draw_apart():
    ops = [{"op": "random_resized_crop"}, {"op": "mirror"}, {"op": "mirror"}, {"op": "pca"}]
    one = plan_of(ops[:2])
    both = plan_of(ops)
    assert both.colour is not None
    second = one.mirror ^ both.mirror
    for other in (one.crop[:, 0], one.crop[:, 2], both.colour[:, 0, 3], one.mirror):
        agreement = np.corrcoef(second, other)[0, 1]
        assert abs(agreement) < RARE / math.sqrt(NUM)
    np.testing.assert_array_equal(one.crop, both.crop)


VECTORS = np.array(IMAGENET_EIGVEC)
VALUES = np.array(IMAGENET_EIGVAL)


def assert_pca_noise(added: np.ndarray, sizes: np.ndarray) -> None:
    """Check that `added`, (n, 3) grey levels, is V (alpha * sizes) with independent N(0, .1)."""
    alphas = np.linalg.solve(VECTORS * (sizes * 255), added.T)
    num = added.shape[0]
    assert np.abs(alphas.mean(axis=1)).max() < RARE * 0.1 / math.sqrt(num)
    spread = alphas.std(axis=1) / 0.1
    assert np.abs(spread - 1).max() < RARE / math.sqrt(2 * num)
    assert np.abs(np.corrcoef(alphas) - np.eye(3)).max() < RARE / math.sqrt(num)
    # Kurtosis: normal, and not uniform or two-valued with the same variance.
    fourth = (alphas**4).mean(axis=1) / (alphas**2).mean(axis=1) ** 2
    assert np.abs(fourth - 3).max() < RARE * math.sqrt(24 / num)


@pytest.mark.parametrize(
    ("mode", "sizes", "first_std"), [("eigval", VALUES, 5.55), ("stdev", np.sqrt(VALUES), 11.89)]
)
def test_pca_noise_has_its_three_components(mode, sizes, first_std):
    colour = plan_of([{"op": "pca", "mode": mode}], num=50_000).colour
    assert colour is not None
    assert_pca_noise(colour[:, :, 3], sizes)
    assert abs((colour[:, :, 3] @ VECTORS[:, 0]).std() - first_std) < 0.02 * first_std


def per_image(alphas: np.ndarray) -> np.ndarray:
    """Add noise along the components of each image, here of 50 pixels of the dataset's law."""
    rng = np.random.default_rng(1)
    num = alphas.shape[1]
    pixels = rng.normal(size=(num, 50, 3)) * np.sqrt(VALUES) @ VECTORS.T
    values, vectors = np.linalg.eigh(np.einsum("npi,npj->nij", pixels, pixels) / 50)
    return np.einsum("nij,nj,jn->ni", vectors, values, alphas[::-1])


WRONG: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one alpha for all components": lambda a: (a[:1] * VALUES[:, None]).T @ VECTORS.T,
    "the transposed matrix": lambda a: (a * VALUES[:, None]).T @ VECTORS,
    "square roots": lambda a: (a * np.sqrt(VALUES)[:, None]).T @ VECTORS.T,
    "units of 0..1": lambda a: (a * VALUES[:, None] / 255).T @ VECTORS.T,
    "components of each image": lambda a: per_image(a),
    "alphas that are uniform": lambda a: (
        ((ranks(a) / a.shape[1] - 0.5) * math.sqrt(0.12) * VALUES[:, None]).T @ VECTORS.T
    ),
}


def ranks(alphas: np.ndarray) -> np.ndarray:
    """Rank each row's numbers, which are all different, from 0 on."""
    order = np.argsort(alphas, axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def test_the_check_of_pca_passes_the_right_version():
    alphas = np.random.default_rng(0).normal(0, 0.1, (3, 50_000))
    assert_pca_noise((alphas * VALUES[:, None]).T @ VECTORS.T * 255, VALUES)


@pytest.mark.parametrize("name", sorted(WRONG))
def test_the_check_of_pca_tells_the_known_wrong_versions(name):
    alphas = np.random.default_rng(0).normal(0, 0.1, (3, 50_000))
    with pytest.raises(AssertionError):
        assert_pca_noise(WRONG[name](alphas) * 255, VALUES)


def test_pca_with_p_leaves_the_others_untouched():
    colour = plan_of([{"op": "pca", "p": 0.3}]).colour
    assert colour is not None
    is_touched = (colour[:, :, 3] != 0).any(axis=1)
    assert_rate(is_touched, 0.3)
    assert_pca_noise(colour[is_touched, :, 3], VALUES)
    np.testing.assert_array_equal(colour[~is_touched][0], np.eye(3, 4))


OPS = [
    [{"op": "random_resized_crop"}, {"op": "mirror"}, {"op": "pca"}],
    [{"op": "resize", "short": 64}, {"op": "mirror"}, {"op": "center_crop", "size": [60, 33]}],
    [{"op": "mirror"}, {"op": "random_resized_crop", "size": 9, "scale": [0.9, 1]}],
]
SIDES = st.integers(1, 5000)
ROWS = st.lists(
    st.tuples(st.integers(0, 2**48), st.integers(0, 2**32 - 1), SIDES, SIDES), max_size=20
)


def columns_of(rows: list[tuple[int, int, int, int]]) -> tuple[np.ndarray, ...]:
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return columns[0], columns[1], columns[2].astype(np.int32), columns[3].astype(np.int32)


@examples(60)
@given(ops=st.sampled_from(OPS), rows=ROWS, cut=st.integers(0, 20), seed=st.integers(0, 2**64 - 1))
def test_a_row_depends_on_nothing_beside_it(ops, rows, cut, seed):
    recipe = parse_recipe({"ops": ops})
    planner = Planner(recipe, seed, output_size(recipe, None))
    whole = planner.plan(*columns_of(rows))
    parts = [planner.plan(*columns_of(part)) for part in (rows[:cut], rows[cut:])]
    for name in ("crop", "scaled", "window", "mirror"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole, name), joined)
    if whole.colour is not None:
        np.testing.assert_array_equal(whole.colour, np.concatenate([p.colour for p in parts]))


@examples(60)
@given(ops=st.sampled_from(OPS), rows=ROWS)
def test_crops_lie_inside_the_image_and_windows_inside_the_crop(ops, rows):
    recipe = parse_recipe({"ops": ops})
    out_height, out_width = output_size(recipe, None)
    columns = columns_of(rows)
    plan = Planner(recipe, 0, (out_height, out_width)).plan(*columns)
    x, y, width, height = plan.crop.T
    assert (np.minimum(x, y) >= 0).all()
    assert (np.minimum(width, height) >= 1).all()
    assert (x + width <= columns[2]).all()
    assert (y + height <= columns[3]).all()
    assert (plan.window >= 0).all()
    is_possible = [row not in plan.impossible for row in range(len(rows))]
    ends = plan.window + np.array([out_width, out_height])
    assert (ends <= plan.scaled)[is_possible].all()
