"""Programs by the native kernels: equal bytes however they are run, and nothing beyond a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.noise import fill_noise, quantiles
from augd.pixels.program import ProgramPass
from augd.plan.program import StepKind as Kind
from tests.support.examples import examples
from tests.support.program import TINTS, Step, program_of

if native.kernels is None:
    pytest.skip(
        "the native kernels are not built here: no C compiler or no libjpeg-turbo",
        allow_module_level=True,
    )
kernels: Any = native.kernels

WORDS = st.integers(0, 2**32 - 1)
STEPS = st.one_of(
    st.tuples(st.just(Kind.MATRIX), st.tuples(st.integers(0, 1))),
    st.tuples(st.just(Kind.TABLE), st.tuples(st.integers(0, 2))),
    st.tuples(st.just(Kind.POSTERIZE), st.tuples(st.integers(1, 8))),
    st.tuples(st.just(Kind.SOLARIZE), st.tuples(st.floats(0, 256))),
    st.tuples(st.just(Kind.SOLARIZE_ADD), st.tuples(st.integers(-255, 255), st.floats(0, 256))),
    st.tuples(st.sampled_from((Kind.INVERT, Kind.EQUALIZE, Kind.AUTOCONTRAST)), st.just(())),
    st.tuples(st.just(Kind.SHARPNESS), st.tuples(st.floats(0, 64))),
    st.tuples(st.just(Kind.BLUR), st.tuples(st.floats(0.001, 20), st.integers(0, 80))),
    st.tuples(st.just(Kind.NOISE), st.tuples(st.floats(0, 255), WORDS, WORDS)),
)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 70))


def make_row(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    levels = rng.choice((1, 2, 30, 256))
    return rng.integers(0, levels, (*size, 3)).astype(np.uint8) + np.uint8(rng.integers(0, 9))


def tables(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (3, 256)).astype(np.uint8)


@examples(150)
@given(SIZES, st.lists(STEPS, max_size=5), st.integers(0, 1 << 30))
def test_a_program_gives_the_same_bytes_however_it_is_run(
    size: tuple[int, int], steps: list[Step], seed: int
) -> None:
    program, row = program_of(*steps, tables=tables(seed)), make_row(size, seed)
    found = []
    for kind in ("vectors", "portable", "none"):
        slot = np.full((3, *row.shape), 7, np.uint8)
        slot[1] = row
        kernels.use_simd(kind == "vectors")
        with pytest.MonkeyPatch.context() as patch:
            if kind == "none":
                patch.setattr(native, "kernels", None)
            ProgramPass(*size).run(program, 0, slot[1])
        assert (slot[0] == 7).all() and (slot[2] == 7).all()
        found.append(slot[1])
    kernels.use_simd(True)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@examples(60)
@given(SIZES, st.data(), WORDS, st.integers(0, 1 << 30))
def test_a_box_of_noise_is_the_same_however_it_is_made(
    size: tuple[int, int], data: st.DataObject, key: int, seed: int
) -> None:
    height, width = size
    x, y = data.draw(st.integers(0, width)), data.draw(st.integers(0, height))
    box = (x, y, data.draw(st.integers(0, width - x)), data.draw(st.integers(0, height - y)))
    rows = [make_row(size, seed) for _ in range(2)]
    colour = (124.0, 116.4, 104.0), (58.4, 57.1, 255.0)
    fill_noise(rows[0], box, (key, seed), 3, *colour)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernels", None)
        fill_noise(rows[1], box, (key, seed), 3, *colour)
    np.testing.assert_array_equal(rows[0], rows[1])


ANY = st.one_of(st.floats(), st.floats(-2, 300), st.integers(-3, 1 << 33).map(float))


@examples(300)
@given(
    SIZES, st.lists(st.tuples(st.integers(0, 255), st.tuples(ANY, ANY, ANY, ANY))), st.booleans()
)
def test_no_number_makes_the_kernels_write_outside_a_row(
    size: tuple[int, int], steps: list[Any], has_tables: bool
) -> None:
    program = program_of(*steps, matrices=TINTS * 1e3, tables=tables(0)[: 3 * has_tables])
    slot = np.full((3, *size, 3), 7, np.uint8)
    scratch = np.zeros(kernels.program_scratch(*size) // 2 + 9, np.uint16)
    scratch[-8:] = 9
    arrays = program.kinds, program.values, program.matrices, program.tables
    try:
        kernels.run_program(slot[1], *arrays, scratch[:-8], quantiles(), 0, 0)
    except ValueError as error:
        assert "row 0, step " in str(error) and ": expected" in str(error)
    assert (slot[0] == 7).all() and (slot[2] == 7).all() and (scratch[-8:] == 9).all()


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        ((Kind.TABLE, (1,)), "expected a whole number from 0 to 0, got 1"),
        ((Kind.MATRIX, (0.5,)), "expected a whole number from 0 to 1, got 0.5"),
        ((Kind.POSTERIZE, (0,)), "expected a whole number from 1 to 8, got 0"),
        ((Kind.SOLARIZE, (257,)), "expected a number from 0 to 256, got 257"),
        ((Kind.SHARPNESS, (-0.1,)), "expected a number from 0 to 64, got -0.1"),
        ((Kind.BLUR, (0,)), "expected a number from 0.001 to 256, got 0"),
        ((Kind.BLUR, (90, 0)), "expected a whole number from 1 to 256, got 270"),
        ((Kind.NOISE, (256,)), "expected a number from 0 to 255, got 256"),
        ((Kind.JPEG, (0,)), "expected a whole number from 1 to 100, got 0"),
        ((Kind.BOX, (0, 0, 6, 2)), "expected a whole number from 0 to 5, got 6"),
        ((99, ()), "expected a kind of step, got 99"),
    ],
)
def test_a_step_out_of_range_is_refused_by_name(step: Step, wrong: str) -> None:
    row = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(ValueError, match=f"row 0, step 1: {wrong}"):
        ProgramPass(4, 5).run(program_of((Kind.INVERT, ()), step), 0, row)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    program, row = program_of((Kind.INVERT, ())), np.zeros((4, 5, 3), np.uint8)
    scratch = np.zeros(kernels.program_scratch(4, 5), np.uint8)
    kinds, values, matrices, its_tables = (
        program.kinds, program.values, program.matrices, program.tables,
    )  # fmt: skip
    given: dict[str, list[Any]] = {
        "equal numbers of rows": [kinds, values[:, :1], matrices, its_tables, scratch],
        "dense array of 2 axes": [kinds[0], values, matrices, its_tables, scratch],
        "dense array of 3 axes": [kinds, values, matrices[..., :20].copy(), its_tables, scratch],
        "scratch: expected": [kinds, values, matrices, its_tables, scratch[:-2]],
    }
    for message, arrays in given.items():
        with pytest.raises(ValueError, match=message):
            kernels.run_program(row, *arrays, quantiles(), 0, 0)
    for number, first in ((1, 0), (-1, 0), (0, 3)):
        with pytest.raises(ValueError, match="expected one of 1 rows and 2 steps"):
            kernels.run_program(
                row, kinds, values, matrices, its_tables, scratch, quantiles(), number, first
            )
    with pytest.raises(ValueError, match="box: expected a part of 5x4"):
        kernels.fill_noise(row, quantiles(), 2, 0, 4, 1, 0, 0, 0, *(6 * [1.0]))
