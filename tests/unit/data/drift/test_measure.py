"""Two populations through every test: slices, too few rows, the same report each time, thresholds from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.recipefile import load_recipe
from espalier.core.types import Example, Message
from espalier.data.drift.measure import measure_drift
from espalier.data.drift.population import sample_population, text_of
from espalier.data.drift.prompts import read_prompts
from espalier.data.drift.report import WHOLE, DriftReport
from espalier.data.drift.spec import DriftSpec

FOOD = ("pizza", "pasta", "salad", "soup", "bread", "cheese", "olives", "wine")
MONEY = ("card", "transfer", "refund", "fee", "cash", "account", "limit", "rate")
KINDS = ("label:kind=odd", "label:kind=even")


def make_examples(count: int, words: tuple[str, ...] = FOOD, **tags: str) -> list[Example]:
    return [make_example(f"{words[0]}.{n}", words, n, dict(tags)) for n in range(count)]


def make_example(name: str, words: tuple[str, ...], number: int, tags: dict[str, str]) -> Example:
    text = " ".join(words[(number * step) % len(words)] for step in range(1, 4 + number % 5))
    answer = json.dumps({"kind": "odd" if number % 2 else "even"})
    turns = [Message("system", "Be kind."), Message("user", text), Message("assistant", answer)]
    return Example(name, turns, split="test" if number % 5 == 0 else "train", tags=tags)


def compare(one: list[Example], other: list[Example], **spec: Any) -> DriftReport:
    wanted = DriftSpec.model_validate({"permutations": 4_999, "tested": 100, **spec})
    return measure_drift(sample_population(one, wanted), sample_population(other, wanted), wanted)


def test_a_population_has_not_drifted_from_itself() -> None:
    rows = make_examples(200, label="a")
    report = compare(rows, rows[::-1], slices=["split", "label:kind"])
    assert report.verdict == "ok" and {test.verdict for test in report.tests} == {"ok"}
    assert {one.name for one in report.slices} == {WHOLE, *(f"split={name}" for name in ("train", "test")), *KINDS}
    assert all(test.statistic <= 0 and test.p == 1 for test in report.tests if test.test != "embedding")
    assert all(test.statistic < 0.01 for test in report.tests)


def test_other_words_alarm_and_the_worst_stands_first() -> None:
    report = compare(make_examples(200), make_examples(200, MONEY))
    assert report.verdict == "alarm" and report.tests[0].verdict == "alarm"
    loud = {test.test for test in report.alarms()}
    assert {"vocabulary", "embedding"} <= loud and "ks:words" not in loud
    text = report.to_text()
    assert text.startswith("ALARM:") and "next: look at the rows" in text and "less: " in text


def test_only_the_slice_that_drifted_alarms() -> None:
    one = [*make_examples(150, FOOD, topic="food"), *make_examples(150, MONEY, topic="money")]
    other = [
        *make_examples(150, FOOD, topic="food"),
        *make_examples(150, tuple(w.upper()[::-1] for w in MONEY), topic="money"),
    ]
    verdicts = {found.name: found.verdict for found in compare(one, other, slices=["topic"]).slices}
    assert verdicts == {WHOLE: "alarm", "topic=money": "alarm", "topic=food": "ok"}


def test_a_label_that_appears_alarms_by_the_index() -> None:
    one = make_examples(200, label="a")
    other = [*make_examples(100, label="a"), *make_examples(100, label="b")]
    (found,) = [test for test in compare(one, other).tests if test.test == "psi:label"]
    assert found.verdict == "alarm" and found.because == "b: 0.0% -> 50.0%"


def test_a_slice_with_too_few_rows_is_told_and_not_tested() -> None:
    rows = [*make_examples(100, topic="food"), *make_examples(9, MONEY, topic="money")]
    report = compare(rows, make_examples(100, topic="food"), slices=["topic"])
    assert {found.name: found.verdict for found in report.slices}["topic=money"] == "too few"
    assert "topic=money" not in {test.slice for test in report.tests}
    assert report.notes == ("1 slices have fewer than 50 rows on a side and were not tested",)
    few = compare(rows[:5], rows[:5])
    assert few.verdict == "too few" and few.tests == () and "collect more rows" in few.to_text()


def test_slices_only_one_side_knows_are_compared_with_everything_there() -> None:
    live = [*make_examples(80, channel="web"), *make_examples(80, MONEY, channel="app")]
    report = compare(make_examples(200), live, slices=["channel", "shop"])
    found = {one.name: (one.reference, one.current, one.verdict) for one in report.slices}
    assert found["channel=web"] == (200, 80, "ok") and found["channel=app"] == (200, 80, "alarm")
    assert report.notes == (
        "no row of the reference has channel: its slices are compared with everything there",
        "no row on either side has shop",
    )
    assert "tests of slices that are ok" in report.to_text()


def test_a_report_is_the_same_each_time_and_in_any_order_of_rows() -> None:
    one, other = make_examples(300), make_examples(300, (*FOOD[:6], *MONEY[:2]))
    spec = {"sample": 120, "tested": 60, "slices": ["split"]}
    first = compare(one, other, **spec)
    assert compare(one[::-1], other[::-1], **spec) == first
    assert compare(one, other, **spec, seed=1) != first


def test_memory_is_bounded_by_the_sample_whatever_comes() -> None:
    spec = DriftSpec(sample=100, max_chars=100)
    endless = (Example(str(n), text="x" * 5_000) for n in range(3_000))
    (sample,) = sample_population(endless, spec).values()
    assert sample.count == 3_000 and len(sample.rows()) == 100
    assert all(len(row.text) == 100 and row.numbers["chars"] == 5_000 for row in sample.rows())


def test_a_column_of_ids_is_no_slice() -> None:
    rows = [Example(str(n), text="x", tags={"user": str(n)}) for n in range(300)]
    with pytest.raises(InvalidInput, match="more than 100 values"):
        sample_population(rows, DriftSpec(slices=("user",)))


def test_what_is_compared_of_a_row() -> None:
    example = make_examples(1)[0]
    asked, answer = example.messages[1].content, example.messages[2].content
    assert text_of(example, "prompt") == asked and text_of(example, "answer") == answer
    assert text_of(example, "all") == f"{asked}\n{answer}"
    assert text_of(Example("raw", text="t"), "prompt") == "t" and text_of(Example("raw", text="t"), "answer") == ""


def test_limits_of_a_test_win_over_those_of_its_kind() -> None:
    spec = DriftSpec.model_validate(
        {"limits": {"ks": {"least": 0.3}, "ks:words": {"alarm": 0.001}, "embedding": {"off": True}}}
    )
    assert (spec.find_limits("ks:words").alarm, spec.find_limits("ks:words").least) == (0.001, 0.3)
    assert spec.find_limits("ks:chars").alarm == 0.01 and spec.find_limits("embedding").off
    off = compare(make_examples(99), make_examples(99), limits={"psi": {"off": True}, "embedding": {"off": True}})
    assert {test.test for test in off.tests} == {"ks:chars", "ks:words", "vocabulary"}


def test_few_permutations_for_many_tests_are_told() -> None:
    report = compare(make_examples(99), make_examples(99), permutations=99)
    assert "raise permutations" in report.notes[0]


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("min_rows: 50\nlimts: {}\n", ":2:1", "did you mean `limits`"),
        ("bins: 10\nmin_rows: few\n", ":2:1", "min_rows"),
        ("limits:\n  psi: {wran: 1}\n", ":2:9", "did you mean `warn`"),
        ("limits: {chi: {warn: 1}}\n", ":1:1", "no test 'chi'"),
        ("limits: {psi: {warn: 0.5}}\n", ":1:1", "warn must not be above alarm"),
        ("limits: [\n", ":2:1", "not YAML"),
    ],
)
def test_a_wrong_threshold_file_is_refused_with_its_line(tmp_path: Path, text: str, place: str, said: str) -> None:
    path = tmp_path / "drift.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as error:
        load_recipe(path, DriftSpec)
    assert error.value.where == f"{path}{place}" and said in str(error.value)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def asked_of(examples: Iterator[Example]) -> list[str]:
    return [text_of(example, "prompt") for example in examples]


def test_prompts_are_read_from_a_column_or_by_their_format(tmp_path: Path) -> None:
    plain = write_rows(tmp_path / "plain.jsonl", [{"query": "hello", "lang": "en", "note": "x" * 300}] * 3)
    (first, *_) = list(read_prompts(plain))
    assert (first.text, first.tags) == ("hello", {"query": "hello", "lang": "en"})
    assert asked_of(read_prompts(plain, "lang")) == ["en"] * 3
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    chats = write_rows(
        tmp_path / "chats.jsonl", [{"messages": turns}, {"messages": [*turns, {"role": "assistant", "content": "a"}]}]
    )
    assert asked_of(read_prompts(chats)) == ["u", "u"]
    alpaca = write_rows(tmp_path / "alpaca.jsonl", [{"instruction": "do", "input": "it", "output": "done"}] * 2)
    assert len(set(asked_of(read_prompts(alpaca)))) == 1 and "do" in asked_of(read_prompts(alpaca))[0]
    table = tmp_path / "live.csv"
    table.write_text("text,channel\nhow much,web\nhow long,app\n")
    assert [example.tags["channel"] for example in read_prompts(table)] == ["web", "app"]


def test_rows_that_cannot_be_read_are_left_out_and_told(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    path.write_text('{"prompt": "a"}\nbroken\n{"prompt": 3}\n{"prompt": "b"}\n')
    notes: list[str] = []
    assert asked_of(read_prompts(path, "prompt", notes)) == ["a", "b"]
    assert notes[0].startswith("3 problems in live.jsonl") and "row 2" in notes[0]
    with pytest.raises(InvalidInput, match="no column 'promt'") as error:
        list(read_prompts(path, "promt"))
    assert error.value.hint == "did you mean `prompt`?"
    with pytest.raises(NotFound):
        list(read_prompts(tmp_path / "none.jsonl"))
    with pytest.raises(InvalidInput):
        list(read_prompts(write_rows(tmp_path / "odd.jsonl", [{"x": 1}])))
