"""The same bytes on every processor: rendered with and without the wide instructions."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from augd.pixels import native
from augd.pixels.boxes import FilledBox, fill_boxes
from augd.pixels.decode import decode
from augd.pixels.headers.read_header import read_header
from augd.pixels.program import ProgramPass
from augd.pixels.render import Fill, Renderer
from augd.pixels.row_plan import RowPlan, RowPlans
from augd.plan.plan import LocalWarpField
from augd.plan.planner.planner import Planner
from augd.plan.program import StepKind as Kind
from augd.plan.recipe.recipe import parse_recipe
from tests.support.program import program_of

_ROOT = Path(__file__).resolve().parents[3]
_WIDE = "AVX512-SKX,AVX512_SKX,AVX2,FMA3,FP16,AVX,SSE4.2,SSE4.1,SSSE3,POPCNT"
_CPU_AVX2 = 11  # cvdef.h; Python has no name for it
_FILLS: tuple[Fill, ...] = ("reflect", "constant", "nearest", "wrap")


def digests() -> dict[str, str]:
    """Render rows of every kind from noise; return their digests by kind."""
    rng = np.random.default_rng(0)
    found = {name: hashlib.blake2b() for name in ("bent", "warped", "tinted", "linear")}
    for number in range(24):
        size = (96 + number, 100 - number)
        region = rng.integers(0, 256, (150 + number, 201 - number, 3)).astype(np.uint8)
        out = np.empty((*size, 3), np.uint8)
        fill = _FILLS[number % 4]
        renderer = Renderer("linear", size, fill=fill)
        matrix = np.hstack([rng.normal(0, 1.5, (2, 2)), rng.uniform(0, 150, (2, 1))]).tolist()
        row_plan = RowPlan(matrix=matrix, halvings=number % 3)
        renderer.render(region, row_plan, out)
        found["bent"].update(out)
        row_plan.lens, row_plan.warp, row_plan.warp_key = -0.1, LocalWarpField(40.0, 3.0), number
        renderer.render(region, row_plan, out)
        found["warped"].update(out)
        row_plan.colour = (rng.normal(0, 0.4, (3, 4)) + np.eye(3, 4)).tolist()
        row_plan.pivot = rng.normal(0, 0.1, (3, 3)).tolist()
        renderer.render(region, row_plan, out)
        found["tinted"].update(out)
        renderer.render(region, RowPlan((size[1], size[0]), mirror=True), out)
        found["linear"].update(out)
    found["decoded"], found["scaled"] = decoded(rng)
    found["programs"], found["recompressed"] = run_programs(rng)
    found["policies"] = run_policies(rng)
    found["bicubic"], found["bent, bicubic"] = run_cubics(rng)
    return {name: digest.hexdigest() for name, digest in found.items()}


def decoded(rng: np.random.Generator) -> tuple[hashlib.blake2b, hashlib.blake2b]:
    """Decode JPEGs of every kind, at their own size and at 1/2, 1/4 and 1/8."""
    whole, scaled = hashlib.blake2b(), hashlib.blake2b()
    noise = rng.integers(0, 256, (83, 107, 3)).astype(np.uint8)
    for factors in (0x111111, 0x211111, 0x221111, 0x121111):
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors]
        data = cv2.imencode(".jpg", noise, options)[1].tobytes()
        header = read_header(data)
        for scale in (1, 2, 4, 8):
            pixels = decode(data, header, (0, 0, 107, 83), scale)
            (whole if scale == 1 else scaled).update(pixels.tobytes())
    return whole, scaled


def run_programs(rng: np.random.Generator) -> tuple[hashlib.blake2b, hashlib.blake2b]:
    """Run programs of all steps, and fill boxes with noise; JPEG noise apart."""
    found, recompressed = hashlib.blake2b(), hashlib.blake2b()
    for number in range(12):
        row = rng.integers(0, 256, (70 + number, 90 - number, 3)).astype(np.uint8)
        steps = [
            (Kind.SHARPNESS, (0.1 + number / 6,)), (Kind.MATRIX, (number % 2,)),
            (Kind.BLUR, (0.3 + number / 5, 0)), (Kind.AUTOCONTRAST, ()),
            (Kind.NOISE, (3.0 * number, number, 2**32 - 1)), (Kind.EQUALIZE, ()),
            (Kind.SOLARIZE, (200,)), (Kind.TABLE, (0,)),
        ]  # fmt: skip
        program_pass = ProgramPass(*row.shape[:2])
        program_pass.run(program_of(*steps), 0, row)
        fill_boxes(row, [FilledBox((number, 9, 40, 50), None, 7**number, number)])
        found.update(row)
        program_pass.run(program_of((Kind.JPEG, (5 + 8 * number,))), 0, row)
        recompressed.update(row)
    return found, recompressed


def run_policies(rng: np.random.Generator) -> hashlib.blake2b:
    """Plan and render rows of every policy, of an image that has their size already."""
    found = hashlib.blake2b()
    image = rng.integers(0, 256, (61, 74, 3)).astype(np.uint8)
    for op in _POLICIES:
        plain = {"ops": [{"op": "resize", "size": [61, 74]}, op], "filter": "linear"}
        recipe = parse_recipe({**plain, "fill": "constant", "fill_value": 90})
        planner, renderer = Planner(recipe, 7, (61, 74)), Renderer.of(recipe, (61, 74))
        sides = np.full(16, 74, np.int32), np.full(16, 61, np.int32)
        plan = planner.plan(np.arange(16), np.zeros(16, np.int64), *sides)
        row_plans = RowPlans(plan, 0, 16)
        for number, (x, y, width, height) in enumerate(row_plans.crop):
            out = np.empty((61, 74, 3), np.uint8)
            region = np.ascontiguousarray(image[y : y + height, x : x + width])
            renderer.render(region, row_plans[number], out)
            found.update(out)
    return found


def run_cubics(rng: np.random.Generator) -> tuple[hashlib.blake2b, hashlib.blake2b]:
    """Resize and bend by the bicubic filter, bounded by a hard edge in every other row."""
    exact, bent = hashlib.blake2b(), hashlib.blake2b()
    for number in range(12):
        size = (90 - number, 70 + number)
        region = rng.integers(0, 256, (60 + 9 * number, 190 - 7 * number, 3)).astype(np.uint8)
        out = np.empty((*size, 3), np.uint8)
        renderer = Renderer("bicubic", size, fill=_FILLS[number % 4])
        row_plan = RowPlan((size[1] + number, size[0] + 2), (number, 1), flip=number % 3 == 0)
        renderer.render(region, row_plan, out)
        exact.update(out)
        matrix = np.hstack([rng.normal(0, 0.9, (2, 2)), rng.uniform(0, 99, (2, 1))]).tolist()
        picture = (0, 0, 50, 40) if number % 2 else None
        renderer.render(region, RowPlan(matrix=matrix, picture=picture), out)
        bent.update(out)
    return exact, bent


_POLICIES = (
    {"op": "rand_augment", "spec": "rand-m9-mstd0.5-inc1-n3-p1"},
    {"op": "rand_augment", "style": "tf", "layers": 4},
    {"op": "trivial_augment"},
    {"op": "auto_augment"},
    {"op": "three_augment"},
    {"op": "aug_mix", "severity": 8, "alpha": 0.7},
)


def numpy_features() -> str:
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))


def in_a_process(**environment: str) -> dict[str, object]:
    code = (
        "import json, cv2, tests.unit.pixels.test_same_bytes as t;"
        "print(json.dumps({**t.digests(), 'avx2': cv2.checkHardwareSupport(t._CPU_AVX2),"
        " 'numpy': t.numpy_features()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(_ROOT), **environment},
        cwd=_ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("library", ["opencv", "numpy", "ipp", "libjpeg"])
def test_other_instructions_give_the_same_bytes(library: str) -> None:
    here = digests()
    if library == "opencv":  # which leaves most to the kernels, where they are
        if not cv2.checkHardwareSupport(_CPU_AVX2):
            pytest.skip("this processor, or this OpenCV, has no AVX2 that could be switched off")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "kernels", None)
            here = digests()
        there = in_a_process(AUGD_KERNELS="off", OPENCV_CPU_DISABLE=_WIDE, OPENCV_IPP="disabled")
        assert not there["avx2"]
    elif library == "numpy":
        features = numpy_features()
        if not features:
            pytest.skip("this NumPy uses no instructions here that could be switched off")
        there = in_a_process(NPY_DISABLE_CPU_FEATURES=features)
        assert there["numpy"] == ""
    elif library == "libjpeg":
        there = in_a_process(JSIMD_FORCENONE="1")
    else:
        there = in_a_process(OPENCV_IPP="disabled")
    assert {name: there[name] for name in here} == here


def test_the_kernels_give_the_same_bytes_without_vectors() -> None:
    if native.kernels is None or not native.kernels.use_simd(True):
        pytest.skip("no native kernels here, or no vector instructions that they use")
    here = digests()
    native.kernels.use_simd(False)
    without = digests()
    native.kernels.use_simd(True)
    assert without == here


@pytest.mark.skipif(int(cv2.__version__[0]) < 5, reason="OpenCV 4 samples at 1/32 px")
def test_bent_rows_are_the_same_with_and_without_kernels() -> None:
    if native.kernels is None:
        pytest.skip("the native kernels are not built here: no C compiler or no libjpeg-turbo")
    here = digests()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernels", None)
        without = digests()
    for kind in ("bent", "warped", "tinted", "programs", "policies", "bent, bicubic"):
        assert without[kind] == here[kind]
