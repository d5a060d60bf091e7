"""Agreement against published worked examples, and against the definitions written out pair by pair."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.data.annotation.agreement import (
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    share_equal,
    span_f1,
)


def spread(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """Two annotators' ratings whose cross table this is."""
    cells = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [i for i, _ in cells], [j for _, j in cells]


def test_cohens_kappa_of_the_textbook() -> None:
    # 50 applications, two readers: the example of the English Wikipedia's article on Cohen's kappa.
    found = cohen_kappa(*spread([[20, 5], [10, 15]]))
    assert found.value == pytest.approx(0.4)
    assert found.n == 50
    assert found.ci_low is not None and found.ci_high is not None
    assert found.ci_low < 0.4 < found.ci_high
    assert found.ci_low == pytest.approx(0.4 - 1.96 * 0.127, abs=0.05)  # the large-sample standard error is 0.127


def test_weighted_kappa_of_married_couples() -> None:
    # Hout et al. (1987), in Agresti; R's vcd::Kappa(SexualFun) prints 0.1293 and, by equal spacing, 0.2374.
    table = [[7, 7, 2, 3], [2, 8, 3, 7], [1, 5, 4, 9], [2, 8, 9, 14]]
    first, second = spread(table)
    assert cohen_kappa(first, second).value == pytest.approx(0.1293, abs=5e-5)
    assert cohen_kappa(first, second, weights="linear", categories=range(4)).value == pytest.approx(0.2374, abs=5e-5)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30))
def test_quadratic_kappa_is_its_definition_over_all_pairs(pairs: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    observed = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    expected = sum((a - b) ** 2 for a, b in itertools.product(first, second)) / len(pairs) ** 2
    found = cohen_kappa(first, second, weights="quadratic", categories=range(4)).value
    assert found == (pytest.approx(1 - observed / expected) if expected else None)


def test_fleiss_kappa_of_the_textbook() -> None:
    # Ten subjects, fourteen raters, five categories: the example of the English Wikipedia's article, 0.210.
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(counts).value == pytest.approx(0.210, abs=5e-4)


# Krippendorff (2011), section D: four observers, twelve units, values missing.
_OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("scale", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_alpha_of_his_own_example(scale: Any, alpha: float) -> None:
    units = [[value for value in unit if value is not None] for unit in zip(*_OBSERVERS, strict=True)]
    found = krippendorff_alpha(units, scale=scale)
    assert found.value == pytest.approx(alpha, abs=5e-4)
    assert found.n == 11  # one unit has a single value


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=4), min_size=1, max_size=12))
def test_nominal_alpha_is_its_definition_over_all_pairs(units: list[list[int]]) -> None:
    values = [value for unit in units for value in unit]
    total = len(values)
    within = sum(
        sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units
    )  # fmt: skip
    across = sum(a != b for a, b in itertools.permutations(values, 2)) / (total - 1)
    found = krippendorff_alpha(units).value
    assert found == (pytest.approx(1 - within / across) if across else None)


def test_what_chance_alone_would_give_is_not_called_agreement() -> None:
    assert cohen_kappa(["a"] * 9, ["a"] * 9).value is None
    assert fleiss_kappa([[3, 0], [3, 0]]).value is None
    assert fleiss_kappa([[1, 0], [0, 1]]).value is None  # one annotator agrees with nobody
    assert krippendorff_alpha([["a"], ["b"]]).value is None
    assert cohen_kappa([], []).value is None
    draw = random.Random(1)
    first, second = [[draw.choice("ab") for _ in range(4000)] for _ in range(2)]
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(0, abs=0.05)
    assert found.ci_low is not None and found.ci_high is not None and found.ci_low < 0 < found.ci_high


def test_spans_agree_by_what_both_marked() -> None:
    first = [frozenset({(0, 4, "name"), (9, 12, "date")}), frozenset({(1, 2, "name")}), frozenset()]
    second = [frozenset({(0, 4, "name"), (9, 12, "name")}), frozenset(), frozenset()]
    found = span_f1(first, second)
    assert found.value == pytest.approx(2 * 1 / (3 + 2))  # one in common; three marked here, two there
    assert span_f1(second, first).value == found.value
    assert span_f1([frozenset()], [frozenset()]).value is None


def test_an_interval_narrows_with_items_and_is_the_same_every_time() -> None:
    few, many = cohen_kappa(*spread([[20, 5], [10, 15]])), cohen_kappa(*spread([[2000, 500], [1000, 1500]]))
    assert few == cohen_kappa(*spread([[20, 5], [10, 15]]))
    widths = [each.ci_high - each.ci_low for each in (few, many) if each.ci_high and each.ci_low]
    assert widths[1] < widths[0] / 5


def test_a_share_of_equal_words_has_wilsons_interval() -> None:
    # 81 of 263 is Newcombe's (1998) example: 0.2553 to 0.3662.
    found = share_equal([1] * 263, [1] * 81 + [0] * 182)
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=5e-5)
    few = share_equal("aaa", "aaa")
    assert few.value == 1.0
    assert few.ci_low == pytest.approx(0.4385, abs=5e-5)  # three equal words are no certainty
    assert share_equal([], []).value is None
