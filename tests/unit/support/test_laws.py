"""The checks of laws against tabled tails: a check that cannot fail proves nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.support import laws


@pytest.mark.parametrize("freedom", [2, 10, 80, 300])
def test_the_tail_of_chi_square_is_the_sum_of_poissons_terms(freedom):
    for factor in (0.3, 0.9, 1.0, 1.1, 2.0):
        half = freedom * factor / 2
        terms = [i * math.log(half) - half - math.lgamma(i + 1) for i in range(freedom // 2)]
        exact = math.fsum(map(math.exp, terms))
        assert laws.chi_square_tail(2 * half, freedom) == pytest.approx(exact, rel=1e-9)


def test_the_tail_of_chi_square_is_the_tabled_one():
    assert laws.chi_square_tail(3.841458820694124, 1) == pytest.approx(0.05)
    assert laws.chi_square_tail(23.92812697687947, 1) == pytest.approx(1e-6)


def test_the_tail_of_the_binomial():
    assert laws.binomial_tail(2, 3, 0.5) == pytest.approx(0.5)
    assert laws.binomial_tail(0, 9, 0.1) == 1
    assert laws.binomial_tail(9, 9, 0.1) == pytest.approx(1e-9)
    assert laws.binomial_tail(5_500, 10_000, 0.5) < 1e-6


def test_each_check_tells_a_law_that_is_off_by_a_little():
    rng = np.random.default_rng(0)
    values = rng.random(20_000)
    laws.assert_uniform(values)
    laws.assert_rate(values < 0.3, 0.3)
    laws.assert_mean(values, 0.5, 1 / 12, 0.5)
    laws.assert_counts(np.bincount((values * 7).astype(int)))
    laws.assert_independent(values, rng.random(20_000))
    for check in (
        lambda: laws.assert_uniform(values**1.1),
        lambda: laws.assert_rate(values < 0.33, 0.3),
        lambda: laws.assert_mean(values**1.1, 0.5, 1 / 12, 0.5),
        lambda: laws.assert_counts(np.bincount((values**1.3 * 7).astype(int))),
        lambda: laws.assert_independent(values, values + rng.normal(0, 1.5, 20_000)),
    ):
        with pytest.raises(AssertionError):
            check()


def tied(seed: int) -> np.ndarray:
    """Widths as crops have them: a fifth of them are the photo's own."""
    return np.minimum(np.random.default_rng(seed).integers(1, 1250, 20_000), 1000)


def test_independence_is_judged_alike_in_whatever_order_ties_come(monkeypatch):
    a, b = tied(1), tied(2)
    for kind in ("stable", "quicksort", "heapsort"):
        monkeypatch.setattr(
            np, "argsort", lambda values, kind=kind: np.asarray(values).argsort(kind=kind)
        )
        laws.assert_independent(a, b)
        laws.assert_independent(a, a[::-1])
        for other in (a, 2000 - a, np.where(a < 1000, b, 1), np.where(b < 900, b, a)):
            with pytest.raises(AssertionError):
                laws.assert_independent(a, other)


def test_ties_share_a_cell_and_others_are_as_many_in_each():
    cells = laws.cells_of(tied(3), 10)
    assert len(set(cells[tied(3) == 1000].tolist())) == 1
    assert np.bincount(cells)[:-1] == pytest.approx(2000, abs=40)
    assert np.bincount(laws.cells_of(np.random.default_rng(0).random(20_000), 10)).tolist() == (
        [2000] * 10
    )


def test_values_that_are_all_equal_are_not_called_independent():
    with pytest.raises(AssertionError, match="nothing to compare"):
        laws.assert_independent(np.ones(20_000), tied(4))
