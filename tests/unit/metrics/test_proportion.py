"""Shares and how sure they are, against SciPy's."""

from __future__ import annotations

import pytest
from scipy import stats

from espalier.metrics.proportion import binomial_tail, fisher_tail, wilson


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 3), (3, 3), (6, 100), (25, 50), (130, 4000)])
def test_wilson_s_interval_is_scipy_s(successes: int, n: int, confidence: float) -> None:
    ours = wilson(successes, n, confidence)
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (1, 5), (3, 50), (12, 50), (50, 50), (40, 4000)])
@pytest.mark.parametrize("rate", [1e-6, 0.02, 0.5, 0.98])
def test_the_binomial_tail_is_scipy_s(successes: int, n: int, rate: float) -> None:
    theirs = stats.binomtest(successes, n, rate, alternative="greater").pvalue
    assert binomial_tail(successes, n, rate) == pytest.approx(theirs, rel=1e-9)


def test_the_binomial_tail_where_nothing_is_left_to_chance() -> None:
    assert [binomial_tail(k, 5, 0.0) for k in (0, 1, 5)] == [1.0, 0.0, 0.0]
    assert [binomial_tail(k, 5, 1.0) for k in (0, 1, 5)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("successes", "n", "others", "others_n"),
    [
        (0, 5, 0, 5),
        (3, 5, 0, 9),
        (25, 50, 475, 950),
        (50, 50, 0, 950),
        (12, 50, 3, 50),
        (2, 50, 900, 950),
        (9, 50, 0, 1),
    ],
)
def test_fisher_s_tail_is_scipy_s(successes: int, n: int, others: int, others_n: int) -> None:
    table = [[successes, n - successes], [others, others_n - others]]
    theirs = stats.fisher_exact(table, alternative="greater").pvalue
    assert fisher_tail(successes, n, others, others_n) == pytest.approx(theirs, rel=1e-9)
