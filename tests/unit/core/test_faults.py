"""pydantic's complaints in our words: the place as the data have it, one sentence, and of a union what was meant."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from espalier.core.faults import list_faults, refuse, summarise


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Among(_Strict):
    choices: tuple[int | str, ...] = Field(min_length=1)


class Between(_Strict):
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Between:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        return self


class Cut(_Strict):
    kind: Literal["cut"] = "cut"
    share: float = Field(0.1, gt=0, lt=1)


class Keep(_Strict):
    kind: Literal["keep"] = "keep"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Form(_Strict):
    space: dict[str, Annotated[Among | Between, Field(union_mode="left_to_right")]] = {}
    count: int = Field(1, ge=1, le=9, multiple_of=1)
    rate: float = Field(1.0, gt=0, lt=10)
    name: str = Field("x", min_length=1, max_length=4, pattern="^[a-z]+$")
    size: int | str | None = None
    mode: Literal["fast", "slow"] | Between = "fast"
    colour: Colour = Colour.RED
    on: bool = False
    words: list[str] = Field([], max_length=2)
    steps: list[Annotated[Cut | Keep, Field(discriminator="kind")]] = []
    inner: Between | None = None
    alias: int = Field(0, alias="as")
    even: int = 0

    @field_validator("even")
    @classmethod
    def _check_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("an even number is needed")
        return value


CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown": ({"nmae": "a"}, ["nmae: unknown key"]),
    "unknown, deep": ({"inner": {"low": 1, "high": 2, "lgo": True}}, ["inner.lgo: unknown key"]),
    "missing": ({"inner": {"low": 1}}, ["inner.high: missing"]),
    "too small": ({"count": 0}, ["count: must be at least 1 (got 0)"]),
    "too large": ({"count": 10}, ["count: must be at most 9 (got 10)"]),
    "not above": ({"rate": 0}, ["rate: must be more than 0 (got 0)"]),
    "not below": ({"rate": 10}, ["rate: must be less than 10 (got 10)"]),
    "no number": ({"rate": "x"}, ["rate: must be a number (got 'x')"]),
    "no whole number": ({"count": 1.5}, ["count: must be a whole number (got 1.5)"]),
    "no text": ({"name": 1}, ["name: must be text (got 1)"]),
    "empty": ({"name": ""}, ["name: must not be empty (got '')"]),
    "long": ({"name": "abcde"}, ["name: must have at most 4 characters (got 'abcde')"]),
    "form": ({"name": "A"}, ["name: must be of the form ^[a-z]+$ (got 'A')"]),
    "no truth": ({"on": "perhaps"}, ["on: must be true or false (got 'perhaps')"]),
    "many": ({"words": ["a", "b", "c"]}, ["words: must have at most 2 items"]),
    "no list": ({"words": "a"}, ["words: must be a list (got 'a')"]),
    "in a list": ({"words": ["a", 2]}, ["words.1: must be text (got 2)"]),
    "enum": ({"colour": "green"}, ["colour: must be 'red' or 'blue' (got 'green')"]),
    "no mapping": ({"inner": 3}, ["inner: must be a mapping of names to values (got 3)"]),
    "our own sentence": ({"even": 3}, ["even: an even number is needed (got 3)"]),
    "our own, of several fields": ({"inner": {"low": 2, "high": 1}}, ["inner: low must be less than high"]),
    "alias": ({"as": "x"}, ["as: must be a whole number (got 'x')"]),
    "kind": ({"steps": [{"kind": "cutt"}]}, ["steps.0: there is no kind 'cutt'"]),
    "no kind": ({"steps": [{"share": 0.5}]}, ["steps.0.kind: missing"]),
    "in a kind": ({"steps": [{"kind": "cut", "share": 2}]}, ["steps.0.cut.share: must be less than 1 (got 2)"]),
    # A union: pydantic names its branches and lists what each of them lacks.
    "branch by its fields": ({"space": {"lr": {"low": 1, "high": 0.1}}}, ["space.lr: low must be less than high"]),
    "branch, unknown key": ({"space": {"lr": {"low": 1, "high": 2, "lgo": 1}}}, ["space.lr.lgo: unknown key"]),
    "other branch": ({"space": {"lr": {"choices": []}}}, ["space.lr.choices: must not be empty"]),
    "branch in a branch": (
        {"space": {"lr": {"choices": [1, [2]]}}}, ["space.lr.choices.1: must be a whole number or text"],
    ),
    "values of several kinds": ({"size": 1.5}, ["size: must be a whole number or text (got 1.5)"]),
    "a word or a mapping": (
        {"mode": "fats"}, ["mode: must be 'fast' or 'slow' or a mapping of names to values (got 'fats')"],
    ),
    "a mapping where a word may be": ({"mode": {"low": 1}}, ["mode.high: missing"]),
    "several": ({"count": 0, "rate": 0}, ["count: must be at least 1 (got 0)", "rate: must be more than 0 (got 0)"]),
}  # fmt: skip


def refusal(data: Any, kind: Any = Form) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(data)
    return caught.value


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_one_sentence_with_the_place_the_data_have(case: str) -> None:
    data, said = CASES[case]
    faults = list_faults(refusal(data), data, Form)
    assert [fault.tell() for fault in faults] == said


@pytest.mark.parametrize("case", CASES)
def test_without_the_data_no_word_of_pydantic_s_own_is_told_either(case: str) -> None:
    data, _ = CASES[case]
    error = refusal(data)
    told = "; ".join(fault.tell() for fault in list_faults(error, None))
    for foreign in ("nput should", "not permitted", "type=", "pydantic", "Value error", "function-", "[_in"):
        assert foreign not in told
    assert "\n" not in summarise(error) and "http" not in summarise(error)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"nmae": "a"}, "did you mean `name`?"),
        ({"a": "x"}, "did you mean `as`?"),
        ({"space": {"lr": {"low": 1, "high": 2, "logs": 1}}}, "did you mean `log`?"),
        ({"steps": [{"kind": "cut", "shrae": 1}]}, "did you mean `share`?"),
        ({"steps": [{"kind": "kepe"}]}, "did you mean `keep`?"),
        ({"count": 0}, "look there"),
        ({"count": 0, "nmae": "a"}, "did you mean `name`?"),
    ],
)
def test_a_refusal_says_what_was_probably_meant_and_else_where_to_look(data: dict[str, Any], hint: str) -> None:
    error = refuse(refusal(data), data, Form, what="form", where="f.yaml:1:1", hint="look there")
    assert (error.hint, error.where) == (hint, "f.yaml:1:1")
    assert error.message.startswith("form: ")


def test_what_is_wrong_as_a_whole_has_no_place_but_the_name_it_is_given() -> None:
    (fault,) = list_faults(refusal([]), [], Form)
    assert fault.tell() == "must be a mapping of names to values"
    assert fault.tell("the file") == "the file: must be a mapping of names to values"


def test_a_refusal_of_much_stays_short() -> None:
    data = {f"unknown{number}": 1 for number in range(100)}
    assert refuse(refusal(data), data, Form).message.count("unknown key") == 5


def test_a_bug_is_told_in_one_line() -> None:
    assert summarise(KeyError("x")) == "KeyError: 'x'"
    assert summarise(refusal({"count": 0})) == "Form: count: must be at least 1 (got 0)"


def test_a_body_with_thousands_of_faults_is_not_read_anew_for_each() -> None:
    readings = 0

    class Counted(list[Any]):
        def __iter__(self) -> Any:
            nonlocal readings
            readings += 1
            return super().__iter__()

    data = {"steps": Counted([1] * 5000)}
    with pytest.raises(ValidationError) as caught:
        Form.model_validate(data)
    readings = 0
    said = str(refuse(caught.value, data, Form))
    assert readings <= 10
    assert "steps.0" in said and "steps.4" in said and "steps.5" not in said
