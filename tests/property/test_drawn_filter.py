"""`filter="random"` and `vertical_flip` by their laws, and as rows show them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from augd.diagnostics.sample_renderer import SampleRenderer
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.params_writer import describe
from augd.plan.plan import Plan
from augd.plan.recipe.recipe import parse_recipe
from demo.photos import make_photos
from tests.support.plans import plan_of

NUM = 100_000
CROP = {"op": "random_resized_crop", "size": 32}
# The 99.9th percentile of chi-square with one degree of freedom.
CHI_SQUARE_MOST = 10.83


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_each_filter_makes_half_of_the_rows() -> None:
    plan = plan_of([CROP], num=NUM, filter="random")
    assert plan.is_bicubic is not None
    cubic = int(plan.is_bicubic.sum())
    assert chi_square([cubic, NUM - cubic]) < CHI_SQUARE_MOST


def test_the_filter_is_drawn_for_each_view_and_epoch_apart() -> None:
    plans = [plan_of([CROP], num=NUM // 2, filter="random", views=2, epoch=e) for e in (0, 1)]
    first, second = (plan.is_bicubic.reshape(-1, 2) for plan in plans)  # type: ignore[union-attr]
    pairs = [
        (first[:, 0], first[:, 1]),
        (first[:, 0], second[:, 0]),
        (first[:-1, 0], first[1:, 0]),
    ]
    for one, other in pairs:
        same = int((one == other).sum())
        assert chi_square([same, len(one) - same]) < CHI_SQUARE_MOST


@pytest.mark.parametrize("filter", ["antialias", "linear", "bicubic"])
def test_nothing_else_changes_with_the_filter(filter: str) -> None:
    ops: list[dict[str, Any]] = [CROP, {"op": "mirror"}, {"op": "pca"}, {"op": "erase", "p": 0.5}]
    drawn, other = (plan_of(ops, num=50, filter=name) for name in ("random", filter))
    assert other.is_bicubic is None
    for field in ("crop", "scaled", "window", "mirror", "colour", "erase"):
        assert np.array_equal(getattr(drawn, field), getattr(other, field))


def test_a_vertical_flip_comes_with_its_probability() -> None:
    for p in (0.5, 0.1):
        plan = plan_of([CROP, {"op": "vertical_flip", "p": p}], num=NUM)
        assert plan.flip is not None
        count = int(plan.flip.sum())
        variance = NUM * p * (1 - p)
        assert (count - NUM * p) ** 2 / variance < CHI_SQUARE_MOST


def rows_of(plan: Plan, picture: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    row_plans, found = RowPlans(plan, 0, len(plan.crop)), []
    renderer = Renderer("linear", size)
    for row in range(len(plan.crop)):
        x, y, w, h = row_plans.crop[row]
        out = np.empty((*size, 3), np.uint8)
        renderer.render(picture[y : y + h, x : x + w], row_plans[row], out)
        found.append(out)
    return found


@pytest.mark.parametrize("is_before", [False, True])
def test_a_flipped_window_is_the_window_of_the_flipped_image(is_before: bool) -> None:
    """Also cut after the flip, and with a mirror between."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    flips = [{"op": "vertical_flip", "p": 1.0}, {"op": "mirror", "p": 1.0}]
    cut = {"op": "random_crop", "size": [20, 24]}
    ops = [*flips, cut] if is_before else [cut, *flips]
    plan = plan_of(ops, num=8, size=(60, 40))
    turned = picture[::-1, ::-1]
    for row, found in enumerate(rows_of(plan, picture, (20, 24))):
        x, y, _, _ = plan.crop[row].tolist()
        assert np.array_equal(found, picture[y : y + 20, x : x + 24][::-1, ::-1])
        assert np.array_equal(found, turned[40 - y - 20 : 40 - y, 60 - x - 24 : 60 - x])


def test_the_matrix_has_the_flip() -> None:
    """`batch.params` maps a row's pixels to the image on both paths, which agree."""
    ops = [{"op": "vertical_flip", "p": 0.5}, CROP, {"op": "mirror"}]
    exact = plan_of(ops, num=40)
    bent = plan_of([*ops, {"op": "translate", "x": 0.0, "p": 1.0}], num=40)
    assert bent.bent is not None and bent.bent.all()
    matrices = [describe(plan, 1, (32, 32))[:, 6:12] for plan in (exact, bent)]
    assert np.allclose(*matrices)
    assert exact.flip is not None and 5 < exact.flip.sum() < 35


def test_explain_says_both(tmp_path: Any) -> None:
    from augd.diagnostics.drawn_text import as_plain

    make_photos(tmp_path / "photos", 4, classes=["bricks"])
    recipe = parse_recipe(
        {"ops": [CROP, {"op": "vertical_flip", "p": 1.0}], "filter": "random", "views": 6}
    )
    with SampleRenderer(str(tmp_path / "photos"), recipe, 0) as room:
        drawn = as_plain(room.drawn(0, 0, room.read(0).header))
    filters = {view["filter"] for view in drawn["views"]}
    assert filters == {"bicubic", "antialias"}
    for view in drawn["views"]:
        assert view["words"].endswith(f"upside down · filter {view['filter']}")
