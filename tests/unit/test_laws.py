"""The checks of laws against tabled tails: a check that cannot fail proves nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests import laws


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
