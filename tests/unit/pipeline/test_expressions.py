"""The two small languages of a pipeline compute what they say and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.pipeline.expressions import holds, names_in, parameters_in, substitute

PARAMETERS: dict[str, Any] = {"n": 3, "lr": 0.5, "name": "support", "on": True, "list": [1, 2], "empty": ""}
METRICS = {"gate": {"passed": 1.0, "eval.exact": 0.9}}


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("${parameters.n}", 3),
        (" ${ parameters.on } ", True),
        ("${parameters.list}", [1, 2]),
        ("model-${parameters.name}-${parameters.n}", "model-support-3"),
        ({"a": ["${parameters.lr}", {"b": "${parameters.n}"}]}, {"a": [0.5, {"b": 3}]}),
        ("no reference, $HOME, {braces}", "no reference, $HOME, {braces}"),
        (7, 7),
        (None, None),
    ],
)
def test_references_are_replaced_and_alone_keep_their_type(value: Any, result: Any) -> None:
    assert substitute(value, PARAMETERS) == result


@pytest.mark.parametrize("value", ["${parameters.nn}", "${n}", "${parameters.n", "x ${steps.a.b}", "${}"])
def test_a_reference_to_nothing_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput):
        substitute(value, PARAMETERS)


def test_a_replaced_value_is_not_read_again() -> None:
    assert substitute("${parameters.x}", {"x": "${parameters.y}"}) == "${parameters.y}"


@pytest.mark.parametrize(
    ("condition", "result"),
    [
        ("", True),
        ("parameters.n > 2", True),
        ("parameters.n > 2 and not parameters.on", False),
        ("parameters.n < 2 or parameters.name == 'support'", True),
        ("1 < parameters.n <= 3", True),
        ("1 < parameters.n < 3", False),
        ("parameters.n in [1, 2, 3]", True),
        ("parameters.name not in ['a', 'b']", True),
        ("'sup' in parameters.name", True),
        ("parameters.lr != -0.5", True),
        ("steps.gate.passed == 1", True),
        ("steps.gate.eval.exact >= 0.95", False),
        ("parameters.empty", False),
        ("not (parameters.n == 3)", False),
    ],
)
def test_a_condition_is_as_true_as_it_reads(condition: str, result: bool) -> None:
    assert holds(condition, PARAMETERS, METRICS) is result


@pytest.mark.parametrize(
    "condition",
    [
        "parameters.n +",
        "parameters.n + 1 > 2",
        "__import__('os').system('true')",
        "parameters.n.__class__",
        "[x for x in parameters.list]",
        "lambda: 1",
        "parameters.n is 3",
        "open",
        "steps.gate",
        "f'{parameters.n}' == '3'",
        "(parameters.n := 4)",
        "parameters.list[0] == 1",
        "parameters.n > 'a'",
        "parameters.nn > 1",
        "steps.gate.failed > 1",
        "steps.nothing.passed > 1",
    ],
)
def test_anything_else_is_refused(condition: str) -> None:
    with pytest.raises(InvalidInput):
        holds(condition, PARAMETERS, METRICS)


@given(st.text(max_size=40))
def test_no_text_does_anything_but_hold_or_be_refused(condition: str) -> None:
    try:
        assert holds(condition, PARAMETERS, METRICS) in (True, False)
    except InvalidInput as error:
        assert error.hint


@given(
    st.recursive(
        st.integers() | st.text() | st.none() | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_values_without_references_stay_as_they_are(value: Any) -> None:
    if not parameters_in(value) and "${" not in repr(value):
        assert substitute(value, PARAMETERS) == value


def test_names_are_found_wherever_they_stand() -> None:
    assert names_in("parameters.a > 1 and (steps.x.m < 2 or not parameters.b)") == {
        "parameters.a",
        "steps.x.m",
        "parameters.b",
    }
    assert parameters_in({"a": ["${parameters.x}", "b-${parameters.y}"]}) == {"x", "y"}
