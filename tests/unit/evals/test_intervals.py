from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from espalier.evals.intervals import bootstrap_mean, difference_of, interval_of, mcnemar, newcombe
from espalier.metrics.proportion import wilson

binary = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=200)
shares = st.lists(st.floats(0, 1), min_size=1, max_size=60)


def pairs(both: int, lost: int, won: int, neither: int) -> tuple[list[float], list[float]]:
    before = [1.0] * (both + lost) + [0.0] * (won + neither)
    after = [1.0] * both + [0.0] * lost + [1.0] * won + [0.0] * neither
    return before, after


@given(binary)
def test_wilson_equals_scipys(values: list[float]) -> None:
    oracle = stats.binomtest(int(sum(values)), len(values)).proportion_ci(method="wilson")
    ours = interval_of(values, ratio=True)
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_the_exact_binomial_test(lost: int, won: int) -> None:
    before, after = pairs(3, lost, won, 2)
    oracle = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert mcnemar(before, after) == pytest.approx(oracle, rel=1e-9)


def test_the_paired_difference_of_proportions_is_the_published_one() -> None:
    # Cavo et al. (2012), worked in Fagerland, Lydersen, Laake: Statistical Analysis of Contingency Tables, chapter 8.
    after, before = pairs(both=59, lost=6, won=16, neither=80)
    ours = newcombe(before, after)
    assert (ours.low, ours.high) == pytest.approx((-0.1186, -0.0046), abs=5e-5)
    assert mcnemar(before, after) == pytest.approx(0.052479, abs=5e-7)


def test_the_bootstrap_agrees_with_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(1).beta(2, 1, size=40)
    oracle = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=5).confidence_interval
    ours = bootstrap_mean(list(values), resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high), abs=0.004)


def test_a_bootstrap_of_clusters_equals_one_over_the_clusters_means() -> None:
    draw = np.random.default_rng(2)
    means = draw.uniform(size=30)
    values = [float(mean) for mean in means for _ in range(4)]
    clusters = [str(i) for i in range(30) for _ in range(4)]
    clustered, apart = bootstrap_mean(values, clusters), bootstrap_mean(values)
    whole = bootstrap_mean([float(mean) for mean in means])
    assert (clustered.low, clustered.high) == pytest.approx((whole.low, whole.high), abs=1e-12)
    assert clustered.high - clustered.low > 1.7 * (apart.high - apart.low)  # 4 copies of a case are one case


def test_equal_values_never_claim_certainty() -> None:
    for value in (0.0, 0.5, 1.0):
        found = interval_of([value] * 30, ratio=True)
        assert found.low <= value <= found.high
        assert 0.1 < found.high - found.low < 0.4
    sure = difference_of([0.0] * 30, [1.0] * 30, ratio=True)
    assert (sure.value, sure.interval.high) == (1.0, 1.0)
    assert 0.7 < sure.interval.low < 0.9
    unsure = difference_of([0.25] * 30, [0.5] * 30, ratio=True)
    assert unsure.interval.low < 0.25 < unsure.interval.high


def test_clusters_of_equal_binary_values_count_once() -> None:
    values, clusters = [1.0] * 40, [str(i // 4) for i in range(40)]
    assert interval_of(values, clusters, ratio=True) == wilson(10, 10)
    change = difference_of([0.0] * 40, values, clusters, ratio=True)
    assert change.interval == newcombe([0.0] * 10, [1.0] * 10)
    assert change.p_value is None


def test_a_value_that_is_no_ratio_is_bootstrapped_even_when_it_is_0_or_1() -> None:
    values = [0.0, 1.0] * 20
    assert interval_of(values, ratio=False) == bootstrap_mean(values)


@given(shares, st.integers(0, 5))
def test_an_interval_is_reproducible_and_holds_the_mean(values: list[float], seed: int) -> None:
    found = interval_of(values, ratio=True, seed=seed)
    assert found == interval_of(values, ratio=True, seed=seed)
    mean = sum(values) / len(values)
    assert found.low - 1e-9 <= mean <= found.high + 1e-9 or len(values) < 8
    assert -1e-9 <= found.low <= found.high <= 1 + 1e-9


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60))
def test_turning_before_and_after_round_turns_the_difference_round(table: list[tuple[float, float]]) -> None:
    before, after = [a for a, _ in table], [b for _, b in table]
    there, back = difference_of(before, after, ratio=True), difference_of(after, before, ratio=True)
    assert there.value == pytest.approx(-back.value)
    assert (there.interval.low, there.interval.high) == pytest.approx((-back.interval.high, -back.interval.low))
    assert there.p_value == back.p_value
    assert there.interval.low - 1e-12 <= there.value <= there.interval.high + 1e-12


def test_the_paired_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(7)
    table = [0.15, 0.05, 0.5, 0.3]  # both, lost, won, neither: the true difference is 0.45
    covered = 0
    for _ in range(1500):
        both, lost, won, neither = draw.multinomial(40, table)
        found = difference_of(*pairs(both, lost, won, neither), ratio=True).interval
        covered += found.low <= 0.45 <= found.high
    assert 0.93 <= covered / 1500 <= 0.985
