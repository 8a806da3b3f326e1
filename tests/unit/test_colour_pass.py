"""The colour pass, against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from augd.pixels.outline import Outline
from augd.pixels.render import ERASED, Renderer
from augd.pixels.tint import COLOUR_ERROR, Tint, add_mean
from tests.reference import tinted

GREY = np.array([0.299, 0.587, 0.114])


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def recoloured(row: NDArray[np.uint8], colour: NDArray[np.float64]) -> NDArray[np.uint8]:
    out = row.copy()
    Tint().apply(colour.tolist(), out)
    return out


def contrast(factor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return A | b and C of one contrast."""
    colour = np.hstack([np.eye(3) * factor, np.zeros((3, 1))])
    return colour, (1 - factor) * np.outer(np.ones(3), GREY)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32),
    reach=st.sampled_from([0.05, 0.5, 2.0, 10.0]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_random_matrices_are_within_the_bound(
    seed: int, reach: float, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    colour = np.hstack([rng.normal(0, reach, (3, 3)) + np.eye(3), rng.normal(0, 60, (3, 1))])
    row = noise(*size, seed=seed)
    found, exact = recoloured(row, colour), tinted(row, colour)
    assert np.abs(found - exact).max() <= 0.5 + COLOUR_ERROR
    # The nearest level, wherever the exact value is not as near as that to a half.
    to_half = np.abs(exact - np.floor(exact) - 0.5)
    is_clear = to_half > COLOUR_ERROR
    assert (found == np.floor(exact + 0.5))[is_clear].all()


def test_the_bound_is_nearly_reached() -> None:
    """All three coefficients half a step off, as far as can be from the middle grey."""
    colour = np.full((3, 4), (300 + 0.4999) / 1024)
    row = np.full((1, 1, 3), 255, np.uint8)
    errors = []
    for offset in np.linspace(-40.0, -39.0, 100):
        colour[:, 3] = offset
        errors.append(np.abs(recoloured(row, colour) - tinted(row, colour)).max())
    assert 0.5 + 0.9 * COLOUR_ERROR < max(errors) <= 0.5 + COLOUR_ERROR


@pytest.mark.parametrize("factor", [0.5, 0.25, 1.5, 0.6, 1.4])
@pytest.mark.parametrize("width", [1, 7, 64, 256])
def test_halves_are_rounded_up_also_without_mixing(factor: float, width: int) -> None:
    """A matrix with nothing beside its diagonal: OpenCV's own way would round halves to even."""
    row = np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None], (2, width, 3)).copy()
    steps = round(factor * 1024)
    found = recoloured(row, np.hstack([np.eye(3) * (steps / 1024), np.zeros((3, 1))]))
    assert (found == np.minimum((row.astype(int) * steps + 512) // 1024, 255)).all()


@pytest.mark.parametrize("colour", [np.eye(3, 4) * 40.0, np.eye(3, 4) + 9000.0 * np.eye(3, 4, 3)])
def test_what_the_fast_way_cannot_hold_is_exact(colour: NDArray[np.float64]) -> None:
    row = noise(5, 6)
    assert (recoloured(row, colour) == np.floor(tinted(row, colour) + 0.5)).all()


def test_the_mean_is_exact() -> None:
    row = noise(61, 67)
    colour, pivot = contrast(0.7)
    found = add_mean(colour.tolist(), pivot.tolist(), row)
    for channel in range(3):
        sums = row.astype(int).sum(axis=(0, 1)).tolist()
        exact = sum(
            Fraction(c) * Fraction(total, 61 * 67)
            for c, total in zip(pivot[channel].tolist(), sums, strict=True)
        )
        assert abs(Fraction(found[channel][3]) - exact) < Fraction(1, 2**40)
        assert list(found[channel][:3]) == colour[channel, :3].tolist()


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.3])
def test_contrast_pivots_on_the_mean_grey(factor: float) -> None:
    row = (noise(40, 40) // 4 + 90).astype(np.uint8)
    colour, pivot = contrast(factor)
    out = row.copy()
    outline = Outline((40, 40), colour=colour.tolist(), pivot=pivot.tolist())
    Renderer("linear", (40, 40)).render(row, outline, out)
    mean_grey = float(row.reshape(-1, 3).mean(axis=0) @ GREY)
    exact = factor * row + (1 - factor) * mean_grey
    assert np.abs(out - exact).max() <= 0.5 + COLOUR_ERROR
    assert abs(float(out.reshape(-1, 3).mean(axis=0) @ GREY) - mean_grey) < 0.1


def test_a_contrast_of_nothing_is_the_mean_grey_everywhere() -> None:
    row = noise(20, 20)
    out = row.copy()
    colour, pivot = contrast(0.0)
    outline = Outline((20, 20), colour=colour.tolist(), pivot=pivot.tolist())
    Renderer("linear", (20, 20)).render(row, outline, out)
    mean_grey = float(row.reshape(-1, 3).mean(axis=0) @ GREY)
    assert np.unique(out).tolist() == [int(mean_grey + 0.5)]


def test_on_the_device_pixels_stay_and_the_matrix_is_given() -> None:
    row = noise(20, 20)
    colour, pivot = contrast(0.7)
    renderer = Renderer("linear", (20, 20), colour_on="device")
    out, given = np.empty_like(row), np.empty((3, 4), np.float32)
    outline = Outline((20, 20), colour=colour.tolist(), pivot=pivot.tolist())
    renderer.render(row, outline, out, given)
    assert (out == row).all()
    expected = colour.copy()
    expected[:, 3] += pivot @ row.reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(given, expected, rtol=1e-6)
    renderer.render(row, Outline((20, 20)), out, given)
    assert (given == np.eye(3, 4)).all()


@pytest.mark.parametrize("colour_on", ["producer", "device"])
def test_the_place_for_the_matrix_is_asked_for_on_the_device_only(colour_on: str) -> None:
    renderer = Renderer("linear", (4, 4), colour_on=colour_on)  # type: ignore[arg-type]
    row = noise(4, 4)
    given = np.empty((3, 4), np.float32) if colour_on == "producer" else None
    with pytest.raises(ValueError, match=r"colour_out: expected an array with colour_on='device'"):
        renderer.render(row, Outline((4, 4)), row.copy(), given)


def test_an_unknown_place_of_the_colour_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="colour_on: expected 'producer' or 'device', got 'gpu'"):
        Renderer("linear", (4, 4), colour_on="gpu")  # type: ignore[arg-type]


def test_erase_comes_after_colour() -> None:
    row = noise(10, 12)
    outline = Outline(
        (12, 10), colour=np.eye(3, 4, 0).tolist(), erase=(3, 2, 5, 4), pivot=np.eye(3).tolist()
    )
    out = np.empty_like(row)
    Renderer("linear", (10, 12)).render(row, outline, out)
    assert (out[2:6, 3:8] == ERASED).all()
    outline.erase = (0, 0, 0, 0)
    whole = np.empty_like(row)
    Renderer("linear", (10, 12)).render(row, outline, whole)
    out[2:6, 3:8] = whole[2:6, 3:8]
    assert (out == whole).all()
