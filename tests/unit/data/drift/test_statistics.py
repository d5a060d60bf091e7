"""The tests of drift against numbers worked out by hand, against scipy, and against what chance gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from espalier.data.diversity import embed
from espalier.data.drift.kolmogorov import compare_distributions
from espalier.data.drift.measure import correct_holm
from espalier.data.drift.population import Row
from espalier.data.drift.stability import (
    OTHERS,
    chi_square_tail,
    compare_categories,
    compare_numbers,
    stability_index,
)
from espalier.data.drift.vocabulary import compare_vocabulary
from espalier.data.drift.wording import compare_embeddings, gaussian_kernel

COUNTS = st.lists(st.integers(0, 400), min_size=2, max_size=120).map(lambda found: np.array(found, np.int64))


def rows_of(texts: list[str]) -> list[Row]:
    return [Row(text, {}, {}) for text in texts]


def make_texts(random: np.random.Generator, count: int, words: list[str]) -> list[str]:
    return [" ".join(random.choice(words, 8)) for _ in range(count)]


def test_the_index_is_the_sum_worked_out_by_hand() -> None:
    # shares 0.5, 0.3, 0.2 -> 0.4, 0.4, 0.2
    by_hand = -0.1 * math.log(0.8) + 0.1 * math.log(4 / 3) + 0
    assert stability_index([50, 30, 20], [40, 40, 20], added=0) == pytest.approx(by_hand) == pytest.approx(0.0510825624)
    # half a row more in each bin: 5.5 and 0.5 of 6 -> 0.5 and 5.5 of 6
    assert stability_index([5, 0], [0, 5]) == pytest.approx(2 * (5 / 6) * math.log(11))


def test_numbers_fall_into_quantile_bins_of_the_reference() -> None:
    reference = np.arange(1, 101)
    found = compare_numbers(reference, np.full(100, 95), bins=10)
    # Nine bins lose 10 of 100 rows each, the last gains 90; 100 rows and 10 half rows a side.
    lost = (0.5 - 10.5) / 105 * math.log(0.5 / 10.5)
    gained = (100.5 - 10.5) / 105 * math.log(100.5 / 10.5)
    assert found.psi == pytest.approx(9 * lost + gained)
    assert (found.worst, found.shares, found.p) == ("over 90", (0.1, 1.0), pytest.approx(0, abs=1e-12))


def test_a_number_that_is_always_the_same_is_stable_until_it_changes() -> None:
    same = np.full(60, 7)
    assert compare_numbers(same, same, 10).psi == 0 and compare_numbers(same, same, 10).p == 1
    assert compare_numbers(same, np.full(60, 8), 10).psi > 1


def test_rare_values_share_a_bin_and_new_ones_do_not_vanish() -> None:
    found = compare_categories(["a"] * 90 + ["b"] * 6 + ["c", "d"], ["a"] * 60 + ["new"] * 36 + ["e", "e"])
    assert found.worst == "new" and found.shares == (0.0, pytest.approx(36 / 98)) and found.p < 1e-6
    rare = compare_categories(list("abcd") * 2, list("efgh") * 2)
    assert (rare.worst, rare.psi, rare.p) == (OTHERS, 0, 1)


@pytest.mark.parametrize("degrees", [1, 2, 9, 76])
@pytest.mark.parametrize("p", [0.5, 0.05, 0.001])
def test_the_tail_of_chi_square_is_scipys(degrees: int, p: float) -> None:
    assert chi_square_tail(stats.chi2.isf(p, degrees), degrees) == pytest.approx(p, rel=0.2, abs=0.005)


def test_the_index_alarms_by_chance_as_rarely_as_said() -> None:
    random = np.random.default_rng(1)
    draws = [compare_numbers(*random.poisson(40, (2, 150)), bins=10).p for _ in range(400)]
    assert 0.02 <= np.mean(np.array(draws) <= 0.05) <= 0.08


@given(COUNTS, COUNTS)
def test_the_distance_of_two_samples_is_scipys(one: np.ndarray, other: np.ndarray) -> None:
    distance, p = compare_distributions(one, other)
    assert distance == pytest.approx(stats.ks_2samp(one, other, method="asymp").statistic)
    assert 0 <= p <= 1


@pytest.mark.parametrize("shift", [0, 4, 8, 12])
def test_the_p_of_two_samples_is_near_scipys(shift: int) -> None:
    random = np.random.default_rng(shift)
    one, other = random.normal(0, 1000, 300).astype(np.int64), random.normal(shift * 25, 1000, 400).astype(np.int64)
    _, p = compare_distributions(one, other)
    assert p == pytest.approx(stats.ks_2samp(one, other, method="exact").pvalue, rel=0.1, abs=1e-4)


def test_the_distance_of_vocabularies_is_scipys() -> None:
    one, other = rows_of(["a a b", "b c"]), rows_of(["a d", "D d e"])
    distance, _, because = compare_vocabulary(one, other, 100, 20, 0, "")
    assert distance == pytest.approx(jensenshannon([2, 2, 1, 0, 0], [1, 0, 0, 3, 1], base=2))
    assert because.startswith("more: d, e; less: b, ") and words_apart() == pytest.approx(1)


def words_apart() -> float:
    return compare_vocabulary(rows_of(["a b"]), rows_of(["c d"]), 100, 20, 0, "")[0]


def test_tokens_are_compared_where_there_are_some() -> None:
    one, other = [Row("same", {}, {}, (1, 2))], [Row("same", {}, {}, (3, 4))]
    assert compare_vocabulary(one, other, 10, 20, 0, "")[0] == pytest.approx(1)


def test_the_discrepancy_is_the_double_sum_of_the_paper() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(7, 4)), random.normal(1, size=(5, 4))
    kernel = gaussian_kernel(np.vstack([x, y]))
    xx = sum(kernel[i, j] for i in range(7) for j in range(7) if i != j) / (7 * 6)
    yy = sum(kernel[i, j] for i in range(7, 12) for j in range(7, 12) if i != j) / (5 * 4)
    xy = sum(kernel[i, j] for i in range(7) for j in range(7, 12)) * 2 / (7 * 5)
    assert compare_embeddings(list(x), list(y), 20, 0, "")[0] == pytest.approx(xx + yy - xy, abs=1e-6)


def test_permutations_alarm_by_chance_as_rarely_as_said_and_see_a_shift() -> None:
    random = np.random.default_rng(5)
    words = [f"w{n}" for n in range(40)]
    by_words, by_wording = [], []
    for trial in range(120):
        one, other = (make_texts(random, 30, words) for _ in range(2))
        by_words.append(compare_vocabulary(rows_of(one), rows_of(other), 50, 199, trial, "")[1])
        by_wording.append(compare_embeddings([*map(embed, one)], [*map(embed, other)], 199, trial, "")[1])
    for found in (by_words, by_wording):
        # 0.05 of 120 is 6; the bounds are what a binomial leaves with 1 in 1000.
        assert np.mean(np.array(found) <= 0.05) <= 15 / 120
        assert 0.3 <= np.mean(found) <= 0.7
    shifted = make_texts(random, 30, words[:20])
    assert compare_vocabulary(rows_of(one), rows_of(shifted), 50, 999, 0, "")[1] == 0.001
    assert compare_embeddings([*map(embed, one)], [*map(embed, shifted)], 999, 0, "")[1] == 0.001


def test_holms_correction_is_the_one_of_the_paper() -> None:
    assert correct_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_holm([]) == [] and correct_holm([0.6, 0.9]) == [1.0, 1.0]
