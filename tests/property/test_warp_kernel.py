"""The kernels of bent rows: the bytes of OpenCV 5, and nothing read outside the region."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.halving import Halver
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlan
from augd.plan.plan import LocalWarpField
from tests.support.examples import examples

if native.kernels is None:
    pytest.skip(
        "the native kernels are not built here: no C compiler or no libjpeg-turbo",
        allow_module_level=True,
    )
kernels: Any = native.kernels

Pixels = NDArray[np.uint8]
FILLS = ("reflect", "constant", "nearest", "wrap")
VALUE = (10, 200, 90)
UNLIMITED = (-(2**31), 2**31 - 1, -(2**31), 2**31 - 1)
UNWARPED = (None, 0.0, None, 0.0, *UNLIMITED, False)
_ROOT = Path(__file__).resolve().parents[2]


def rendered(region: Pixels, row_plan: RowPlan, size: tuple[int, int], fill: str) -> Pixels:
    """Render into the middle row of a slot, and look that its neighbours are untouched."""
    slot = np.full((3, *size, 3), 7, np.uint8)
    renderer = Renderer("linear", size, fill=fill, fill_value=VALUE)  # type: ignore[arg-type]
    renderer.render(region, row_plan, slot[1])
    assert (slot[0] == 7).all() and (slot[2] == 7).all()
    return slot[1]


def by_both(region: Pixels, row_plan: RowPlan, size: tuple[int, int], fill: str) -> Pixels:
    """Render by vectors and without them."""
    found = []
    for is_wanted in (True, False):
        kernels.use_simd(is_wanted)
        found.append(rendered(region, row_plan, size, fill))
    kernels.use_simd(True)
    assert np.array_equal(found[0], found[1])
    return found[0]


def by_opencv(region: Pixels, row_plan: RowPlan, size: tuple[int, int], fill: str) -> Pixels:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernels", None)
        return rendered(region, row_plan, size, fill)


_SIDE = st.integers(1, 40) | st.integers(1, 150)


@examples(150)
@given(
    seed=st.integers(0, 1 << 32),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    sides=st.tuples(_SIDE, _SIDE),
    fill=st.sampled_from(FILLS),
    steps=st.sampled_from(["any", "eighths", "shift"]),
    halvings=st.integers(0, 2),
    lens=st.sampled_from([0.0, 0.0, -0.2, 0.3]),
    is_warped=st.booleans(),
    content=st.sampled_from(["noise", "stripes"]),
)
@pytest.mark.skipif(int(cv2.__version__[0]) < 5, reason="OpenCV 4 samples at 1/32 px")
def test_the_bytes_are_those_of_opencv(
    seed: int,
    size: tuple[int, int],
    sides: tuple[int, int],
    fill: str,
    steps: str,
    halvings: int,
    lens: float,
    is_warped: bool,
    content: str,
) -> None:
    """Eighths and stripes of few levels make sums that lie just between two levels."""
    rng = np.random.default_rng(seed)
    height, width = sides
    levels = 256 if content == "noise" else 2
    around = rng.integers(0, levels, (height + 3, width + 5, 3)).astype(np.uint8)
    region = around[1 : 1 + height, 2 : 2 + width]
    linear = np.eye(2) if steps == "shift" else rng.normal(0, 0.9, (2, 2))
    if steps == "eighths":
        linear = np.rint(linear * 8) / 8
    source = np.rint(rng.uniform(-0.6, 1.6, 2) * (width, height) * 8) / 8
    shift = source - linear @ (np.array(size[::-1]) / 2)
    row_plan = RowPlan(
        matrix=np.hstack([linear, shift[:, None]]).tolist(),
        halvings=halvings,
        lens=lens,
        origin=(8 * int(rng.integers(3)), 8 * int(rng.integers(3))),
        warp=LocalWarpField(40.0, 3.0) if is_warped else None,
        warp_key=seed,
    )
    found = by_both(region, row_plan, size, fill)
    assert np.array_equal(found, by_opencv(region, row_plan, size, fill))


@pytest.mark.parametrize("fill", FILLS)
def test_sides_of_one_to_four_pixels(fill: str) -> None:
    rng = np.random.default_rng(4)
    for height in range(1, 5):
        for width in range(1, 5):
            region = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            matrix = [[0.7, -0.4, -2.0], [0.3, 0.6, -1.0]]
            row_plan = RowPlan(matrix=matrix)
            found = by_both(region, row_plan, (9, 17), fill)
            if int(cv2.__version__[0]) >= 5:
                assert np.array_equal(found, by_opencv(region, row_plan, (9, 17), fill))


def test_halves_go_to_even() -> None:
    """Half a pixel to the right and none down: sums of two neighbours, over two."""
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    region = np.repeat(levels, 4, axis=0)
    row_plan = RowPlan(matrix=[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]])
    found = by_both(region, row_plan, (3, 255), "nearest")
    assert (found == 2 * ((np.arange(255) + 1) // 2)[None, :, None]).all()


@pytest.mark.parametrize("content", [0, 255])
@pytest.mark.parametrize("fill", FILLS)
def test_a_flat_region_stays_flat(fill: str, content: int) -> None:
    """All weights sum to one, to the last bit, also where sums are largest."""
    region = np.full((40, 50, 3), content, np.uint8)
    row_plan = RowPlan(matrix=[[0.37, 0.11, 2.0], [-0.13, 0.41, 9.0]])
    assert (by_both(region, row_plan, (48, 64), fill) == content).all()


def test_what_lies_around_the_region_is_not_seen() -> None:
    rng = np.random.default_rng(1)
    around = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    other = 255 - around
    other[10:40, 20:50] = around[10:40, 20:50]
    for fill in FILLS:
        for number in range(40):
            linear = rng.normal(0, 0.8, (2, 2))
            shift = rng.uniform(0, 30, 2) - linear @ np.array([16, 12])
            row_plan = RowPlan(matrix=np.hstack([linear, shift[:, None]]).tolist(), lens=0.1)
            found = by_both(around[10:40, 20:50], row_plan, (24, 32), fill)
            again = by_both(other[10:40, 20:50], row_plan, (24, 32), fill)
            assert np.array_equal(found, again), number


def test_a_region_upside_down_is_read_as_it_is() -> None:
    region = np.random.default_rng(2).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    row_plan = RowPlan(matrix=[[0.9, -0.2, 4.0], [0.2, 0.9, -1.0]])
    expected = by_both(region[::-1].copy(), row_plan, (24, 33), "reflect")
    assert np.array_equal(by_both(region[::-1], row_plan, (24, 33), "reflect"), expected)


NUMBERS = (0.0, 1.0, -0.7, 1e-30, 3e4, -3e4, 2.0**31, -1e18, 1e300, float("inf"), float("nan"))
PAGE = mmap.PAGESIZE


def guarded(size: int, at_end: bool) -> tuple[mmap.mmap, Any]:
    """Lend memory of `size` bytes just before a page that nobody may touch, or just behind one."""
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for forbidden in (address, address + (pages + 1) * PAGE):
        assert libc.mprotect(ctypes.c_void_p(forbidden), ctypes.c_size_t(PAGE), 0) == 0
    start = (pages + 1) * PAGE - size if at_end else PAGE
    return memory, np.frombuffer(memory, np.uint8, size, start)


def warp_between_guards(seed: int) -> None:
    """Bend by all kinds of numbers, and halve, from and into guarded memory."""
    rng = np.random.default_rng(seed)
    for number in range(4000):
        kernels.use_simd(bool(number % 2))
        height, width = rng.integers(1, 9, 2) if number % 3 else rng.integers(1, 60, 2)
        rows, columns = rng.integers(1, 20, 2)
        kept, flat = guarded(int(height * width * 3), bool(number & 4))
        flat[:] = rng.integers(0, 255, flat.size)  # 255 is the fill's
        region = flat.reshape(height, width, 3)
        held, flat_out = guarded(int(rows * columns * 3), bool(number & 8))
        out = flat_out.reshape(rows, columns, 3)
        numbers = rng.normal(0, 1, 8) * 10 ** rng.integers(0, 3)
        if number % 5 == 0:
            numbers[rng.integers(8)] = NUMBERS[rng.integers(len(NUMBERS))]
        numbers[6:] = np.rint(numbers[6:])
        warps: Any = (*UNWARPED[:-1], bool(number & 16))
        if number % 7 == 0:
            scale = NUMBERS[rng.integers(len(NUMBERS))]
            grid = rng.normal(0, 9, (rows, columns)).astype(np.float32)
            field = rng.normal(0, 1e3, (2, rows, columns)).astype(np.float32)
            field[:, 0, 0] = np.nan
            warps = (grid, float(rng.normal()), field, scale, *UNLIMITED, bool(number & 16))
        fill = int(rng.integers(4))
        kernels.warp(region, out, *numbers.tolist(), fill, 255, 255, 255, *warps)
        if not warps[-1]:  # cubics overshoot
            assert out.min() >= region.min()
            assert out.max() <= (255 if fill == 1 else region.max())
        rows, columns = (height + 1) // 2, (width + 1) // 2
        lent, flat_half = guarded(int(rows * columns * 3), bool(number & 8))
        kernels.halve(region, flat_half.reshape(rows, columns, 3))
        del region, flat, out, flat_out, flat_half, kept, held, lent
    print("all of them")


def test_no_numbers_make_it_read_or_write_outside() -> None:
    """In a process of its own, which a touch of a forbidden page would end."""
    for seed in range(2):
        code = f"import tests.property.test_warp_kernel as t; t.warp_between_guards({seed})"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=_ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.strip()) == (0, "all of them"), done.stderr


def test_halving_by_vectors_and_without_is_what_opencv_makes() -> None:
    rng = np.random.default_rng(3)
    for height, width in ((1, 1), (2, 2), (3, 20), (17, 9), (8, 10), (30, 23), (2, 64), (5, 111)):
        around = rng.integers(0, 256, (height, width + 4, 3)).astype(np.uint8)
        region = around[:, 1 : 1 + width]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "kernels", None)
            expected = Halver().halve(region, 1)
        for is_wanted in (True, False):
            kernels.use_simd(is_wanted)
            assert np.array_equal(Halver().halve(region, 1), expected)
    kernels.use_simd(True)
    with pytest.raises(ValueError, match=r"out: expected \(3, 56, 3\), got \(3, 55, 3\)"):
        kernels.halve(region, np.empty((3, 55, 3), np.uint8))


def test_wrong_arguments_are_refused() -> None:
    source, out = np.zeros((9, 9, 3), np.uint8), np.zeros((5, 6, 3), np.uint8)
    places = (1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 4, 4)
    fill = (0, 1, 2, 3)
    kernels.warp(source, out, *places, *fill, *UNWARPED)
    with pytest.raises(TypeError, match="warp: expected 23 arguments, got 22"):
        kernels.warp(source, out, *places, *fill, *UNWARPED[:-1])
    for wrong in ((4, 0, 0, 0), (-1, 0, 0, 0), (0, 256, 0, 0), (0, 0, 0, -1)):
        with pytest.raises(ValueError, match=r"fill: expected 0\.\.3 and levels of 0\.\.255, got"):
            kernels.warp(source, out, *places, *wrong, *UNWARPED)
    with pytest.raises(TypeError, match="must be real number"):
        kernels.warp(source, out, "1", *places[1:], *fill, *UNWARPED)
    with pytest.raises(ValueError, match="source: expected uint8"):
        kernels.warp(source[..., :2], out, *places, *fill, *UNWARPED)
    with pytest.raises((ValueError, BufferError)):
        kernels.warp(source, out[:, ::2], *places, *fill, *UNWARPED)
    grid, field = np.zeros((5, 6), np.float32), np.zeros((2, 5, 6), np.float32)
    kernels.warp(source, out, *places, *fill, grid, 0.1, field, 1.0, *UNLIMITED, False)
    for bad in (grid[:4], grid.astype(np.float64), field):
        with pytest.raises(ValueError, match="expected 30 dense items of 4 bytes"):
            kernels.warp(source, out, *places, *fill, bad, 0.1, None, 0.0, *UNLIMITED, False)
    for bad in (grid, field.astype(np.float64)):
        with pytest.raises(ValueError, match="expected 60 dense items of 4 bytes"):
            kernels.warp(source, out, *places, *fill, None, 0.0, bad, 1.0, *UNLIMITED, False)
    with pytest.raises((ValueError, BufferError)):
        kernels.warp(
            source, out, *places, *fill, field[:, :, ::2], 0.1, None, 0.0, *UNLIMITED, False
        )
    crooked = np.zeros(4 * 30 + 1, np.uint8)[1:].view(np.float32).reshape(5, 6)
    with pytest.raises(ValueError, match="multiples of 4"):
        kernels.warp(source, out, *places, *fill, crooked, 0.1, None, 0.0, *UNLIMITED, False)
