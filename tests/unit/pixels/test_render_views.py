"""All views of an image: one decode or one for each, whichever is cheaper, with the same bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from augd.pixels import native, render_views
from augd.pixels.decode import decode
from augd.pixels.headers.read_header import read_header
from augd.pixels.render import Renderer
from augd.pixels.render_views import ViewsOfSample, is_united
from augd.pixels.row_plan import RowPlans
from augd.plan.planner.view_group_planner import ViewGroupPlanner
from augd.plan.recipe.phases import parse_stream_recipe
from tests.support.scenes import GROUPS

SIZE = 400, 300
needs_kernels = pytest.mark.skipif(native.kernels is None, reason="every image is decoded whole")


def photo(kind: str = "JPEG", **options: Any) -> bytes:
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    out = io.BytesIO()
    small.resize(SIZE, Image.Resampling.BICUBIC).save(out, kind, **options)
    return out.getvalue()


def rendered(data: bytes, recipe: dict[str, Any], sample: int) -> list[np.ndarray]:
    (phase,) = parse_stream_recipe(recipe).phases
    sizes = phase.sizes(None)
    sides = (np.full(1, side, np.int32) for side in SIZE)
    ids, epochs = np.array([sample]), np.zeros(1, np.int64)
    plans = ViewGroupPlanner(phase, 1, sizes).plan(ids, epochs, *sides)
    groups = [
        ViewsOfSample(
            Renderer.of(group.recipe, size),
            RowPlans(plan, 0, group.recipe.views),
            0,
            np.zeros((group.recipe.views, *size, 3), np.uint8),
            None,
        )
        for group, size, plan in zip(phase.groups, sizes, plans, strict=True)
    ]
    render_views.render_views(data, read_header(data), groups)
    return [group.out for group in groups]


@pytest.mark.parametrize("scaled_decode", ["off", "auto"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_bytes_are_the_same_either_way(
    kind: str, scaled_decode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = photo(kind)
    for sample in range(12):
        found = []
        for is_one in (True, False):
            monkeypatch.setattr(render_views, "is_united", lambda *_, is_one=is_one: is_one)
            found.append(rendered(data, {**GROUPS, "scaled_decode": scaled_decode}, sample))
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.any()


@needs_kernels
def test_regions_far_apart_are_decoded_each() -> None:
    header = read_header(photo())
    corners = [(0, 0, 60, 60), (340, 240, 60, 60)]
    assert not is_united(header, corners)
    assert is_united(header, [(0, 0, 300, 200), (50, 50, 300, 200)])
    assert is_united(header, [(0, 0, 400, 300), *corners])
    # Each decode passes the entropy code above its region: many of them cost more than the image.
    assert is_united(header, [(x, 240, 60, 60) for x in range(0, 340, 40)])


def test_what_is_decoded_whole_anyway_is_decoded_once() -> None:
    corners = [(0, 0, 60, 60), (340, 240, 60, 60)]
    assert is_united(read_header(photo("PNG")), corners)
    assert is_united(read_header(photo(progressive=True)), corners)


@needs_kernels
def test_one_decode_serves_views_that_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counting(data: Any, header: Any, region: Any, scale: int = 1, *more: Any) -> Any:
        asked.append(region)
        return decode(data, header, region, scale, *more)

    data = photo()
    (phase,) = parse_stream_recipe(GROUPS).phases
    sides = (np.full(1, side, np.int32) for side in SIZE)
    plans = ViewGroupPlanner(phase, 1, phase.sizes(None)).plan(
        np.zeros(1, np.int64), np.zeros(1, np.int64), *sides
    )
    groups = [
        ViewsOfSample(
            Renderer.of(group.recipe, size, lambda *a, **k: counting(*a, *k.values())),
            RowPlans(plan, 0, group.recipe.views),
            0,
            np.zeros((group.recipe.views, *size, 3), np.uint8),
            None,
        )
        for group, size, plan in zip(phase.groups, phase.sizes(None), plans, strict=True)
    ]
    render_views.render_views(data, read_header(data), groups)
    crops = [crop for group in groups for crop in group.crops()]
    assert asked == [render_views.box_around(crops)]
