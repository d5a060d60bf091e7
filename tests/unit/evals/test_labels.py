"""Label figures against a reference written out, and that a head and a writer are held to the same measure."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound
from espalier.evals.cases import Case
from espalier.evals.labels import measure_labels, read_labels, write_labels


def case(number: int, wanted: str, said: str, cluster: str = "") -> Case:
    return Case(f"c{number}", "q", said, wanted, cluster or f"c{number}", "stop", 1, 1)


def cases(*pairs: str) -> list[Case]:
    return [case(number, pair[0], pair[1]) for number, pair in enumerate(pairs)]


def f1_by_hand(label: str, pairs: list[tuple[str, str]]) -> float:
    """The harmonic mean of precision and recall, from its definition."""
    right = sum(want == answer == label for want, answer in pairs)
    said, wanted = sum(answer == label for _, answer in pairs), sum(want == label for want, _ in pairs)
    if not right:
        return 0.0
    precision, recall = right / said, right / wanted
    return 2 * precision * recall / (precision + recall)


def test_figures_of_labels_are_what_their_definitions_say() -> None:
    found = measure_labels(cases("aa", "aa", "ab", "bb", "ba", "bx", "cc", "ca"))
    assert found.accuracy.value == pytest.approx(4 / 8)
    assert found.no_label == 1
    by_label = {one.label: one for one in found.labels}
    assert (by_label["a"].precision, by_label["a"].recall) == (2 / 4, 2 / 3)
    assert (by_label["b"].wanted, by_label["b"].said) == (3, 2)
    assert [(one.wanted, one.said, one.count) for one in found.confusions] == [
        ("a", "b", 1), ("b", "", 1), ("b", "a", 1), ("c", "a", 1),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx")), min_size=8, max_size=60))
def test_macro_f1_is_the_mean_of_the_labels_f1_and_lies_in_its_interval(pairs: list[tuple[str, str]]) -> None:
    assume(len({want for want, _ in pairs}) >= 2)
    found = measure_labels([case(number, *pair) for number, pair in enumerate(pairs)])
    labels = sorted({want for want, _ in pairs})
    assert found.macro_f1.value == pytest.approx(math.fsum(f1_by_hand(label, pairs) for label in labels) / len(labels))
    assert 0 <= found.macro_f1.ci_low <= found.macro_f1.ci_high <= 1


def test_more_cases_make_the_interval_narrower_and_clusters_wider() -> None:
    few = cases("aa", "ab", "bb", "ba", "aa", "bb", "ab", "bb")
    many = [case(number, one.reference, one.answer) for number, one in enumerate(few * 8)]
    joined = [case(number, one.reference, one.answer, f"k{number % 8}") for number, one in enumerate(few * 8)]

    def width(rows: list[Case]) -> float:
        found = measure_labels(rows).macro_f1
        return found.ci_high - found.ci_low

    assert width(many) < 0.6 * width(few)
    assert width(joined) > 1.5 * width(many)


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    report = measure_labels(cases("aa", "ab", "bb", "bb"))
    write_labels(tmp_path, report)
    assert read_labels(tmp_path) == report
    with pytest.raises(NotFound, match="measured no labels"):
        read_labels(tmp_path / "none")


def test_references_that_never_come_again_are_no_labels() -> None:
    with pytest.raises(InvalidInput, match="4 cases have 4 different references"):
        measure_labels(cases("aa", "bb", "cc", "dd"))
