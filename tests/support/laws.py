"""Checks of drawn numbers against exact laws, each wrong but once in a million times.

The tails are computed, not looked up: Massart's bound for Kolmogorov and Smirnov's distance, the
incomplete gamma function for chi-square, the sum of the binomial itself, Bernstein's inequality
for means. Seeds are fixed, so that a test that passed passes again.
"""

from __future__ import annotations

import math

import numpy as np

FALSE_ALARM = 1e-6

# The standard normal's quantile at 1 - FALSE_ALARM / 2.
RARE = 4.8916


def assert_uniform(values: np.ndarray, low: float = 0.0, high: float = 1.0) -> None:
    """Kolmogorov and Smirnov against U(low, high)."""
    values = np.sort((np.ravel(values) - low) / (high - low))
    ranks = np.arange(len(values) + 1) / len(values)
    distance = max(np.max(ranks[1:] - values), np.max(values - ranks[:-1]))
    assert distance < math.sqrt(math.log(2 / FALSE_ALARM) / (2 * len(values)))


def assert_counts(counts: np.ndarray, shares: np.ndarray | float | None = None) -> None:
    """Chi-square of counts against the shares of their cells, all alike when None."""
    counts = np.ravel(counts)
    expected = counts.sum() * (1 / len(counts) if shares is None else np.ravel(shares))
    assert np.min(expected) >= 5, "too few draws for this test"
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square_tail(statistic, len(counts) - 1) > FALSE_ALARM


def assert_independent(a: np.ndarray, b: np.ndarray, parts: int = 10) -> None:
    """Chi-square over the table of both values' cells, at most `parts` by `parts`.

    Equal values share a cell, so that the verdict hangs on no sort's order of ties. What the cells
    hold is then uneven, and is expected by the sums of the table's rows and columns.
    """
    cells = [cells_of(values, parts) for values in (a, b)]
    counts = np.zeros([cell.max() + 1 for cell in cells])
    np.add.at(counts, tuple(cells), 1)
    assert min(counts.shape) > 1, "all values are equal, or nearly all: nothing to compare"
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / len(a)
    assert np.min(expected) >= 5, "too few draws for this test"
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    assert chi_square_tail(statistic, freedom) > FALSE_ALARM


def cells_of(values: np.ndarray, parts: int) -> np.ndarray:
    """Number the cells of values, `parts` of them with as many each as ties allow."""
    values = np.ravel(values)
    below = np.searchsorted(np.sort(values), values)
    return np.unique(below * parts // len(values), return_inverse=True)[1].reshape(-1)


def assert_rate(happened: np.ndarray, p: float) -> None:
    """Binomial: as many as so many independent draws of probability `p` have."""
    count, num = int(np.count_nonzero(happened)), np.size(happened)
    assert binomial_tail(count, num, p) > FALSE_ALARM / 2
    assert binomial_tail(num - count, num, 1 - p) > FALSE_ALARM / 2


def assert_mean(values: np.ndarray, mean: float, variance: float, span: float) -> None:
    """Bernstein: the mean of independent draws that stay within `span` of their mean."""
    log = math.log(2 / FALSE_ALARM)
    num = len(values)
    allowed = span * log / (3 * num)
    allowed += math.sqrt(allowed**2 + 2 * variance * log / num)
    assert abs(float(np.mean(values)) - mean) < allowed


def binomial_tail(count: int, num: int, p: float) -> float:
    """Return the probability of `count` or more of `num`."""
    if count == 0 or p == 1:
        return 1.0
    if p == 0:
        return 0.0
    k = np.arange(count, num + 1)
    choices = math.lgamma(num + 1) - np.array(
        [math.lgamma(i + 1) + math.lgamma(num - i + 1) for i in k.tolist()]
    )
    return float(np.exp(choices + k * math.log(p) + (num - k) * math.log1p(-p)).sum())


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Return the probability of at least `statistic`: Q(freedom / 2, statistic / 2).

    By the series of the lower incomplete gamma function, or the continued fraction of the upper
    one where that is small. Source: Abramowitz and Stegun 6.5.29 and 6.5.31.
    """
    a, x = freedom / 2, statistic / 2
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while term > total * 1e-15:
            n += 1
            term *= x / n
            total += term
        return 1 - scale * total
    # From the inside out; 500 levels are more than any of the tests needs.
    fraction = 0.0
    for n in range(500, 0, -1):
        fraction = n * (n - a) / (x + 2 * n + 1 - a - fraction)
    return scale / (x + 1 - a - fraction)
