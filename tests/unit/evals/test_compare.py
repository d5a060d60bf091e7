from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from espalier.core.errors import GateFailed, InvalidInput
from espalier.core.types import Example
from espalier.evals.cases import Evaluation
from espalier.evals.compare import compare
from espalier.evals.gate import judge, parse_condition, require
from espalier.evals.run import Subject, evaluate
from espalier.evals.table import render_markdown, render_table
from espalier.metrics.metric import Answered, Measurement

Score = Callable[..., Evaluation]


def test_before_and_after_show_scores_and_the_paired_difference(score: Score) -> None:
    table = compare([score(2, "base"), score(20, "few-shot"), score(38, "tuned")])
    assert table.labels == ("base", "few-shot", "tuned")
    before, middle, after = table.row("exact_match").cells
    assert before.change is None
    assert middle.change is not None and middle.change.value == pytest.approx(18 / 40)
    assert after.change is not None and after.change.is_better
    assert after.change.p_value == pytest.approx(stats.binomtest(36, 36).pvalue)
    assert 0.7 < after.change.ci_low < 0.9 < after.change.ci_high <= 1.0


def test_a_difference_that_may_be_none_is_called_neither_better_nor_worse(score: Score) -> None:
    change = compare([score(20), score(21)]).row("exact_match").cells[1].change
    assert change is not None and change.is_better is None
    worse = compare([score(30), score(10)]).row("exact_match").cells[1].change
    assert worse is not None and worse.is_better is False


def test_only_the_same_cases_can_be_compared(score: Score) -> None:
    with pytest.raises(InvalidInput, match="different datasets"):
        compare([score(2), score(2, dataset="e" * 64)])
    with pytest.raises(InvalidInput, match="different cases"):
        compare([score(2), score(2, count=39)])


def test_the_table_is_markdown_and_rich(score: Score) -> None:
    table = compare([score(2, "a|b"), score(38, "tuned")])
    lines = render_markdown(table).split("\n")
    assert lines[0] == "| metric | a|b | tuned | difference |".replace("a|b", r"a\|b")
    assert lines[2].startswith("| exact_match | 5.0 % [1.4, 16.5] | 95.0 % [83.5, 98.6] | +90.0 [+")
    assert lines[-1].startswith("40 cases of split test")
    console = Console(width=120, force_terminal=False)
    with console.capture() as captured:
        console.print(render_table(table))
    assert "95.0 % [83.5, 98.6]" in captured.get()


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("exact_match >= 0.95", True),
        ("exact_match > 0.95", False),
        ("exact_match.ci_low >= 0.8", True),
        ("exact_match.ci_low>=0.9", False),
        ("exact_match.n >= 40", True),
        ("exact_match - baseline >= 0.9", True),
        ("exact_match - baseline >= .95", False),
        ("(exact_match - baseline).ci_low > 0.7", True),
        ("( exact_match  -  baseline ).p_value < 1e-6", True),
        ("exact_match <= 0.96", True),
        ("exact_match < 0.95", False),
    ],
)
def test_a_gate_holds_the_figures_against_each_condition(score: Score, text: str, passed: bool) -> None:
    verdict = judge([text], score(38), score(2))
    assert verdict.passed is passed
    assert verdict.clauses[0].passed is passed


def test_a_failed_gate_lists_every_clause_that_failed_with_its_value(score: Score) -> None:
    verdict = judge(["exact_match >= 0.9", "exact_match.ci_low >= 0.9", "exact_match >= 0.99"], score(38))
    assert [clause.passed for clause in verdict.clauses] == [True, False, False]
    assert "FAILED  exact_match >= 0.99  (0.95)" in verdict.summary
    with pytest.raises(GateFailed, match=r"2 of 3 conditions failed: exact_match.ci_low >= 0.9 \(it is 0.83"):
        require(verdict)
    require(judge(["exact_match >= 0.9"], score(38)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exact_mach >= 0.9", "was not measured"),
        ("exact_mach - baseline >= 0.9", "was not measured"),
        ("exact_match.ci_lo >= 0.9", "was not measured"),
        ("exact_match.p_value < 0.1", "a score has no p_value"),
        ("(exact_match - baseline).n > 1", "the difference has no n"),
        ("exact_match", "not a condition"),
        ("exact_match >= high", "not a condition"),
        ("exact_match == 1", "not a condition"),
        ("exact_match - other >= 0.1", "not a condition"),
    ],
)
def test_a_condition_that_cannot_be_judged_is_an_error_not_a_pass(score: Score, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        judge([text], score(38), score(2))


def test_a_gate_needs_conditions_and_a_baseline_where_one_is_named(score: Score) -> None:
    with pytest.raises(InvalidInput, match="without conditions"):
        judge([], score(38))
    with pytest.raises(InvalidInput, match="no baseline"):
        judge(["exact_match - baseline >= 0.1"], score(38))


@given(
    st.from_regex(r"[a-z_]{1,8}(/[a-z@]{1,4}){0,2}", fullmatch=True),
    st.sampled_from([">=", "<=", ">", "<"]),
    st.floats(-10, 10),
    st.booleans(),
)
def test_a_condition_that_is_written_is_the_condition_that_is_read(
    metric: str, sign: str, bound: float, is_change: bool
) -> None:
    found = parse_condition(f"{metric}{' - baseline' if is_change else ''} {sign} {bound!r}")
    assert (found.metric, found.is_change, found.operator, found.bound) == (metric, is_change, sign, bound)


class Length:
    """A metric that is no ratio, and better when it is less."""

    name, unit, higher_is_better = "length", "chars", False

    def measure(self, case: Answered) -> Measurement:
        return Measurement(float(len(case.answer)))


def test_less_is_better_where_the_metric_says_so(make_examples: Callable[[int], list[Example]], parrot: type) -> None:
    def say(words: str) -> Evaluation:
        answers = parrot(lambda text: words + text)
        return evaluate(make_examples(12), answers, [Length()], Subject("s", words, "d"))

    table = compare([say("a long answer "), say("short ")])
    change = table.row("length").cells[1].change
    assert change is not None
    assert (change.value, change.ci_low, change.ci_high, change.p_value) == (-8, -8, -8, None)
    assert change.is_better is True
    assert "| length | 16.17 chars [" in render_markdown(table)
