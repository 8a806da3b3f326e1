"""The hot path allocates nothing of a row's size, once its buffers have grown.

NumPy tells `tracemalloc` of each array. What OpenCV and Pillow allocate inside is theirs; where
they give a new array (a decode, Pillow's resize), it is NumPy's and would show.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from augd.pixels import native
from augd.pixels.program import ProgramPass
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.program import StepKind
from augd.plan.recipe.recipe import parse_recipe
from tests.support.plans import plan_of
from tests.support.program import program_of

SIDE = 224
ROW_BYTES = SIDE * SIDE * 3
CROP = {"op": "random_resized_crop", "size": SIDE}
COLOURS = [{"op": "brightness"}, {"op": "contrast"}, {"op": "saturation"}, {"op": "pca"}]
RECIPES = {
    "linear": [CROP, {"op": "mirror"}],
    "windows": [{"op": "scale_jitter", "short": [240, 300], "crop": SIDE}, {"op": "mirror"}],
    "shift": [CROP, {"op": "pca"}],
    "colours": [CROP, *COLOURS],
    "bent": [CROP, {"op": "mirror"}, {"op": "rotate", "degrees": 10}, {"op": "shear", "x": 0.1}],
    "lens": [CROP, {"op": "lens"}],
    "warped": [CROP, {"op": "local_warp", "alpha": 20, "sigma": 4}],
    "steps": [
        CROP,
        {"op": "all_of", "ops": COLOURS, "p": 0.8, "shuffle": True},
        {"op": "one_of", "ops": [{"op": "solarize"}, {"op": "equalize"}, {"op": "gaussian_blur"}]},
        {"op": "gaussian_noise", "std": [0, 9], "p": 0.5},
    ],
    "bicubic": [CROP, {"op": "vertical_flip"}],
    "bent, bicubic": [CROP, {"op": "rotate", "degrees": 10}],
    "fitted": [{"op": "resize", "longest": SIDE}, {"op": "mirror"}, {"op": "pca"}],
    "erased": [CROP, {"op": "erase"}],
    "erased, pixel": [CROP, {"op": "erase", "fill": "pixel", "count": 3}],
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("colour_on", ["producer", "device"])
def test_rows_are_made_in_buffers_that_are_there(name, colour_on):
    plain = {"ops": RECIPES[name], "filter": "linear", "colour_on": colour_on, "fill": "constant"}
    if name.endswith("bicubic"):
        if native.kernels is None:
            pytest.skip("without the native kernels Pillow and NumPy allocate")
        plain["filter"] = "bicubic"
    if colour_on == "device" and name.startswith(("erased", "steps")):
        pytest.skip("excluded by the recipe")
    if native.kernels is None and name in ("erased, pixel", "steps"):
        pytest.skip("without the native kernels noise allocates")
    plan = plan_of(**plain, num=40)
    row_plans = RowPlans(plan, 0, 40)
    renderer = Renderer.of(parse_recipe(plain), (SIDE, SIDE))
    photo = np.random.default_rng(0).integers(0, 256, (375, 500, 3)).astype(np.uint8)
    out = np.empty((SIDE, SIDE, 3), np.uint8)
    colour = np.empty((3, 4), np.float32) if colour_on == "device" else None

    def make(row: int) -> None:
        x, y, width, height = row_plans.crop[row]
        renderer.render(photo[y : y + height, x : x + width], row_plans[row], out, colour)

    for row in range(40):
        make(row)  # the buffers grow to the largest row
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for row in range(40):
            make(row)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # NumPy takes 64 kB for a moment where two operands are broadcast, whatever their size.
    assert peak - before < ROW_BYTES / 2
    assert now - before < 2_000


@pytest.mark.parametrize("kind", sorted(set(StepKind) - {StepKind.NONE}))
def test_programs_run_in_buffers_that_are_there(kind):
    if native.kernels is None:
        pytest.skip("without the native kernels some steps allocate")
    values = {StepKind.BLUR: (1.5, 0), StepKind.NOISE: (9, 1, 2), StepKind.BOX: (0, 0, 9, 9)}
    program = program_of((kind, values.get(kind, (1,) if kind != StepKind.TABLE else (0,))))
    program_pass, row = ProgramPass(SIDE, SIDE), np.zeros((SIDE, SIDE, 3), np.uint8)
    program_pass.run(program, 0, row)  # makes the buffers
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(40):
            program_pass.run(program, 0, row)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 2_000
