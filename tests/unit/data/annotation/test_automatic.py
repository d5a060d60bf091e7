"""Rules and a model as annotators: the same records as a person's, and no word where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.data.annotation.asked import annotate_by_model
from espalier.data.annotation.automatic import AnnotateSpec
from espalier.data.annotation.record import Labels, Rating, Spans, TextSpan
from espalier.data.annotation.rules import annotate_by_rules
from espalier.data.generate.asking import Asker, Spending
from espalier.data.generate.spec import ModelSpec
from espalier.data.generate.templates import PromptVersion
from espalier.store.journal import Journal
from espalier.testing.scripted import Scripted

TOPIC = {"kind": "label", "name": "topic", "labels": ["billing", "other"]}
MODEL = {"endpoint": "http://127.0.0.1:1/v1", "model": "m"}


def spec(**fields: Any) -> AnnotateSpec:
    return AnnotateSpec.model_validate({"name": "robot", "control": TOPIC, **fields})


def chat(id: str, answer: str, **tags: str) -> Example:
    return Example(id, [Message("user", "Why?"), Message("assistant", answer)], tags=tags)


def test_the_first_rule_that_holds_has_the_word() -> None:
    recipe = spec(
        rules=[
            {"pattern": r"(?i)\binvoice\b", "says": "billing"},
            {"expression": "answer | length > 20 and tags.lang == 'en'", "says": "other"},
        ]
    )
    examples = [
        chat("a", "The INVOICE of June, see there", lang="en"),
        chat("b", "x" * 21, lang="en"),
        chat("c", "short", lang="en"),
    ]
    found = annotate_by_rules(examples, "d", recipe)
    assert [(each.example, each.value, each.annotator, each.by) for each in found.records] == [
        ("a", Labels(labels=("billing",)), "robot", "rule"),
        ("b", Labels(labels=("other",)), "robot", "rule"),
    ]
    assert found.refused == {"c": "no rule holds"}
    assert annotate_by_rules(examples, "d", recipe) == found


def test_otherwise_and_ratings() -> None:
    recipe = spec(control={"kind": "rating", "scale": 3}, rules=[{"pattern": "sorry", "says": "1"}], otherwise="3")
    found = annotate_by_rules([chat("a", "so sorry"), chat("b", "done")], "d", recipe)
    assert [each.value for each in found.records] == [Rating(value=1, scale=3), Rating(value=3, scale=3)]


def test_spans_are_counted_in_characters() -> None:
    recipe = spec(
        control={"kind": "span", "name": "e", "labels": ["year", "word"]},
        rules=[{"pattern": r"\d{4}", "says": "year"}, {"pattern": "Größe", "says": "word"}],
    )
    (record,) = annotate_by_rules([chat("a", "🙂 Größe 1999, 2024")], "d", recipe).records
    assert isinstance(record.value, Spans)
    assert record.value.spans == (
        TextSpan(start=2, end=7, label="word", text="Größe"),
        TextSpan(start=8, end=12, label="year", text="1999"),
        TextSpan(start=14, end=18, label="year", text="2024"),
    )
    (none,) = annotate_by_rules([chat("b", "nothing")], "d", recipe).records
    assert none.value == Spans(spans=())


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"pattern": "(", "says": "other"}, r"rules\.0\.pattern: no regular expression"),
        ({"expression": "answer ==", "says": "other"}, r"rules\.0\.expression: no expression"),
        ({"expression": "answr", "says": "other"}, r"rules\.0\.expression, example a: 'answr' is undefined"),
        ({"expression": "answer.__class__.__mro__", "says": "other"}, "example a: .*unsafe"),
        ({"expression": "range(10 ** 9) | length > 0", "says": "other"}, "example a: .*[Rr]ange too big"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error_with_its_place(rule: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        annotate_by_rules([chat("a", "x")], "d", spec(rules=[rule]))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rules": [{"pattern": "x", "says": "other"}], "model": MODEL},
        {"rules": [{"pattern": "x", "says": "unknown"}]},
        {"rules": [{"pattern": "x", "says": "other"}], "otherwise": "unknown"},
        {"rules": [{"pattern": "x", "expression": "y", "says": "other"}]},
        {"control": {"kind": "rating", "scale": 3}, "rules": [{"pattern": "x", "says": "4"}]},
        {"control": {"kind": "repair"}, "model": MODEL},
        {"control": {"kind": "span", "name": "e", "labels": ["x"]}, "model": MODEL},
    ],
)
def test_a_recipe_of_no_annotator_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"annotat|label|mark|rule|people|spans"):
        spec(**fields)


def ask_model(script: Any, recipe: AnnotateSpec, examples: list[Example]) -> Any:
    def fill(variables: Any) -> list[Message]:
        return [Message("user", "\n".join(f"{name}={value}" for name, value in sorted(variables.items())))]

    model = Scripted(script)
    asker = Asker(model, ModelSpec.model_validate(MODEL), journal=Journal(None), spending=Spending())
    return annotate_by_model(examples, "d", recipe, PromptVersion("p", 2, "digest", fill), asker), model


def test_a_model_says_labels_of_the_set_or_nothing() -> None:
    def script(text: str) -> str:
        if "cannot be read" in text or "third" in text:
            return '{"labels": ["party"], "reason": "fun"}'
        chosen = '"billing"' if "first" in text else '"billing", "other"'
        return f'{{"labels": [{chosen}], "reason": "it says so"}}'

    examples = [chat("a", "first"), chat("b", "second"), chat("c", "third")]
    found, model = ask_model(script, spec(model=MODEL), examples)
    (record,) = found.records
    assert (record.example, record.value, record.by, record.note) == (
        "a",
        Labels(labels=("billing",)),
        "model",
        "it says so",
    )
    assert record.detail["prompt"] == "p@v2" and record.detail["model"] == "m at http://127.0.0.1:1/v1"
    assert found.refused == {"b": "'party' is not among the labels", "c": "'party' is not among the labels"}
    assert "labels=billing, other" in model.asked[0] and "[assistant]" not in model.asked[0]


def test_a_model_marks_within_the_scale() -> None:
    recipe = spec(control={"kind": "rating", "scale": 3, "guide": "3 is perfect"}, model=MODEL)
    found, model = ask_model(lambda _: '{"score": 3, "reason": "good"}', recipe, [chat("a", "x")])
    assert found.records[0].value == Rating(value=3, scale=3)
    assert "guide=3 is perfect" in model.asked[0]
    refused, _ = ask_model(lambda _: '{"score": 4, "reason": "great"}', recipe, [chat("a", "x")])
    assert refused.refused == {"a": "score 4 is above 3"}
