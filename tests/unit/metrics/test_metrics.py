"""Metrics beyond equality: patterns, JSON by schema, a function of the user's own, a judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Generation, Message, SamplingSpec, Usage
from espalier.metrics.json import json_valid
from espalier.metrics.judge import judge
from espalier.metrics.metric import Answered, MetricSpec, make_metric
from espalier.metrics.python import python
from espalier.metrics.text import regex

SCHEMA = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer", "minimum": 1}}}


def answered(answer: str, reference: str = "") -> Answered:
    return Answered("x", answer, reference, [Message("user", "How much?")], {"kind": "sum"})


def test_a_pattern_is_searched_for_or_with_whole_must_be_all_of_the_answer() -> None:
    assert regex(r"\d+").measure(answered("it is 12")).value == 1
    assert regex(r"\d+", whole=True).measure(answered("it is 12")).value == 0
    assert regex(r"\d+", whole=True).measure(answered("12")).value == 1


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a regular expression"):
        regex("(")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"id": 3}', ""),
        ('{"id": 0}', "minimum"),
        ('{"id": "3"}', "not of type"),
        ("{}", "required"),
        ('Here: {"id": 3}', "not JSON"),
        ('{"id": NaN}', "not JSON"),
    ],
)
def test_an_answer_is_json_and_valid_or_says_why_not(answer: str, why: str) -> None:
    measured = json_valid(SCHEMA).measure(answered(answer))
    assert measured.value == (0 if why else 1)
    assert why in measured.why


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=8))
def test_any_json_is_valid_without_a_schema(value: object) -> None:
    assert json_valid().measure(answered(json.dumps(value))).value == 1


def test_a_schema_is_given_as_itself_as_text_or_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "id.json").write_text(json.dumps(SCHEMA))
    for schema in (SCHEMA, json.dumps(SCHEMA), str(tmp_path / "id.json")):
        assert json_valid(schema).measure(answered('{"id": 0}')).value == 0


def test_a_poor_schema_is_refused_and_none_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a JSON schema"):
        json_valid({"type": "nothing"})
    with pytest.raises(NotFound, match="no schema file"):
        json_valid(str(tmp_path / "none.json"))
    with pytest.raises(InvalidInput, match="refers to"):
        json_valid({"$ref": "https://schemas.example/x.json"}).measure(answered("1"))


@pytest.fixture
def rewards(tmp_path: Path) -> Path:
    path = tmp_path / "rewards.py"
    path.write_text(
        "def score(answer, case):\n"
        "    print('goes nowhere')\n"
        "    asked = case['question'][0]['content'] + case['tags']['kind']\n"
        "    return {'score': float(case['reference'] in answer), 'why': asked}\n"
        "def length(answer, case):\n"
        "    return len(answer)\n"
        "def broken(answer, case):\n"
        "    return 1 / 0\n"
        "def endless(answer, case):\n"
        "    while True: pass\n"
        "def leaves(answer, case):\n"
        "    import os; os._exit(3)\n"
        "def silent(answer, case):\n"
        "    return None\n"
    )
    return path


def test_a_function_of_ones_own_sees_the_answer_and_the_case(rewards: Path) -> None:
    metric = python(f"{rewards}:score")
    found = metric.measure(answered("it is 12", "12"))
    assert (metric.name, found.value, found.why) == ("score", 1.0, "How much?sum")
    assert metric.measure(answered("it is 13", "12")).value == 0
    assert python(f"{rewards}:length", unit="score").measure(answered("four")).value == 4


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("broken", r"rewards.py:8.*ZeroDivisionError"),
        ("silent", "TypeError"),
        ("endless", "took more than 0.5 s"),
        ("leaves", "ended its process"),
        ("absent", "there is no function `absent`"),
    ],
)
def test_a_function_that_fails_stops_the_run_with_its_line(rewards: Path, function: str, reason: str) -> None:
    limit_s = 0.5 if function == "endless" else 60.0  # the others are quick, but on a busy machine not that quick
    metric = python(f"{rewards}:{function}", limit_s=limit_s)
    with pytest.raises(InvalidInput, match=reason):
        metric.measure(answered("a"))


def test_a_function_is_named_by_file_and_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"rewards\.py:score"):
        python("rewards")
    with pytest.raises(NotFound, match="no Python file"):
        python(f"{tmp_path / 'none.py'}:score")


class Reader:
    """A model that judges by a rule."""

    def __init__(self, *said: str) -> None:
        self.said, self.asked = list(said), list[Sequence[Message]]()

    def __call__(self, batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
        self.asked.extend(batch)
        usage = Usage(prompt_tokens=1, completion_tokens=1)
        return [Generation(text=self.said.pop(0), finish_reason="stop", usage=usage) for _ in batch]


def test_a_judges_score_is_laid_on_0_to_1_and_asked_for_once() -> None:
    reader = Reader('Well: {"score": 4, "reason": "nearly"}')
    metric = judge(reader, "The sum is right.")
    for _ in range(2):
        found = metric.measure(answered("it is 12", "12"))
        assert (found.value, found.why) == (0.75, "nearly")
    (asked,) = reader.asked
    assert all(part in asked[1].content for part in ("The sum is right.", "How much?", "it is 12"))


@pytest.mark.parametrize("said", ["fine", '{"score": 9}', '{"score": true}', "{}", '{"score": }'])
def test_a_verdict_that_cannot_be_read_counts_nothing_and_says_so(said: str) -> None:
    found = judge(Reader(said), "Right.").measure(answered("12"))
    assert found.value == 0 and "no verdict" in found.why


def test_a_judge_in_a_recipe_gets_the_model_it_names() -> None:
    reader = Reader('{"score": 5}')
    opened: list[object] = []

    def open_model(model: object) -> Reader:
        opened.append(model)
        return reader

    spec = MetricSpec(name="judge", options={"rubric": "Right.", "model": {"base": "builtin:seedling"}})
    assert make_metric(spec, open_model).measure(answered("12")).value == 1
    assert opened == [{"base": "builtin:seedling"}]
    with pytest.raises(InvalidInput, match="needs the option 'model'"):
        make_metric(MetricSpec(name="judge", options={"rubric": "Right."}), open_model)
    with pytest.raises(InvalidInput, match="cannot be done here"):
        make_metric(spec)
