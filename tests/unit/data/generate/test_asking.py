"""Asking: once, in any order, within a budget, and nothing twice after a crash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, Unavailable
from espalier.core.events import Event
from espalier.core.types import Generation, Message, SamplingSpec
from espalier.data.generate.asking import Asker, Spending
from espalier.data.generate.forms import Paraphrases, Verdict, read_form
from espalier.data.generate.spec import BudgetSpec, GenerateSpec, ModelSpec
from espalier.store.journal import Journal
from espalier.testing.scripted import Scripted, say

Make = Callable[..., Asker]
GREEDY = SamplingSpec()


def questions(count: int) -> list[list[Message]]:
    return [[Message("user", f"question {i}")] for i in range(count)]


def test_replies_stand_in_the_order_of_the_questions_whoever_is_fast(make_asker: Make) -> None:
    slow, fast = Scripted(str.upper, late=1), Scripted(str.upper, late=2)
    one = make_asker(slow).ask(questions(20), GREEDY)
    other = make_asker(fast, concurrency=1).ask(questions(20), GREEDY)
    assert one == other
    assert [reply.answer.text for reply in one if reply.answer] == [f"QUESTION {i}" for i in range(20)]


def test_equal_questions_are_asked_once(make_asker: Make) -> None:
    model = Scripted(str.upper)
    asker = make_asker(model)
    assert len(asker.ask([*questions(3), *questions(3)], GREEDY)) == 6
    asker.ask(questions(3), GREEDY)
    assert len(model.asked) == 3


def test_what_a_killed_run_was_answered_is_not_asked_again(make_asker: Make, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"

    def dies(text: str) -> str:
        if int(text.split()[1]) >= 7:  # gone for good: the next may be asked before the first failure is heard of
            raise Unavailable("gone")
        return text.upper()

    with pytest.raises(Unavailable):
        make_asker(Scripted(dies), journal=journal, concurrency=1).ask(questions(10), GREEDY)
    again = Scripted(str.upper)
    replies = make_asker(again, journal=journal).ask(questions(10), GREEDY)
    assert sorted(again.asked) == ["question 7", "question 8", "question 9"]
    assert replies == make_asker(Scripted(str.upper)).ask(questions(10), GREEDY)


def test_another_model_or_sampling_is_another_answer(make_asker: Make, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"
    make_asker(Scripted(str.upper), journal=journal).ask(questions(1), GREEDY)
    model = Scripted(str.upper)
    make_asker(model, journal=journal).ask(questions(1), SamplingSpec(temperature=0.5, seed=1))
    other = ModelSpec(endpoint="http://127.0.0.1:1/v1", model="another")
    Asker(model, other, journal=Journal(journal), spending=Spending()).ask(questions(1), GREEDY)
    assert len(model.asked) == 2


def test_a_budget_of_requests_stops_at_the_same_question(make_asker: Make) -> None:
    for late in (1, 2):
        model = Scripted(str.upper, late=late)
        replies = make_asker(model, budget=BudgetSpec(max_requests=4)).ask(questions(9), GREEDY)
        assert [reply.answer is not None for reply in replies] == [True] * 4 + [False] * 5
        assert replies[4].reason == "not asked: the budget was spent (max_requests 4)"
        assert sorted(model.asked) == [f"question {i}" for i in range(4)]


def test_a_budget_of_tokens_stops_after_the_wave_that_spent_it_also_when_resumed(
    make_asker: Make, tmp_path: Path
) -> None:
    budget = BudgetSpec(max_tokens=20)  # an answer takes 6: the first wave of two spends 12, the second 24
    journal = tmp_path / "answers.jsonl"
    model = Scripted(str.upper, late=3)
    first = make_asker(model, budget=budget, concurrency=2, journal=journal).ask(questions(9), GREEDY)
    assert sum(reply.answer is not None for reply in first) == 4
    resumed = make_asker(model, budget=budget, concurrency=2, journal=journal).ask(questions(9), GREEDY)
    assert resumed == first
    assert len(model.asked) == 4


def test_one_refused_question_is_no_answer_and_is_not_kept(make_asker: Make, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"

    def picky(text: str) -> Generation:
        return say("too long", "error") if text == "question 1" else say(text.upper())

    replies = make_asker(Scripted(picky), journal=journal).ask(questions(3), GREEDY)
    assert replies[1].answer is None
    assert replies[1].reason == "refused by the model: too long"
    again = Scripted(str.upper)
    make_asker(again, journal=journal).ask(questions(3), GREEDY)
    assert again.asked == ["question 1"]


def test_the_first_question_refused_is_no_reason_to_stop(make_asker: Make) -> None:
    def picky(text: str) -> Generation:
        return say("too long", "error") if text == "question 0" else say(text)

    budget = BudgetSpec(max_tokens=1000)  # so that questions go out in waves of one
    replies = make_asker(Scripted(picky), concurrency=1, budget=budget).ask(questions(3), GREEDY)
    assert [reply.reason for reply in replies] == ["refused by the model: too long", "", ""]


def test_a_model_that_refuses_everything_is_an_error_at_once(make_asker: Make) -> None:
    model = Scripted(lambda text: say("seed is not supported", "error"))
    with pytest.raises(InvalidInput, match="refuses every question: seed is not supported"):
        make_asker(model).ask(questions(3), GREEDY)


def test_progress_says_what_was_resumed_what_it_cost_and_ends_whole(tmp_path: Path) -> None:
    told: list[Event] = []
    journal = tmp_path / "answers.jsonl"
    model = ModelSpec(endpoint="http://127.0.0.1:1/v1", model="m", prompt_usd="1", completion_usd="3")
    for _ in range(2):
        told.clear()
        asker = Asker(Scripted(str.upper), model, journal=Journal(journal), spending=Spending(), emit=told.append)
        asker.ask(questions(2 if not journal.exists() else 3), GREEDY)
    assert told[-1].kind == "generate.progress"
    data = told[-1].data
    assert (data["done"], data["total"], data["resumed"], data["prompt_tokens"]) == (3, 3, 2, 3)
    assert data["cost"] == "$0.000012"  # 3 tokens at 1 USD and 3 at 3 USD a million


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no", "not JSON: expected ident at line 1 column 2"),
        ('{"score": "4", "reason": "x"}', "not the form asked for: score: input should be a valid integer"),
        ('{"score": 4, "reason": " "}', "not the form asked for: reason: string should have at least 1 character"),
        ('{"score": 4, "reason": "x", "more": 1}', "not the form asked for: more: extra inputs are not permitted"),
        ('{"score": 4}', "not the form asked for: reason: field required"),
        ('Sure! {"score": 4, "reason": "x"}', "not JSON: expected value at line 1 column 1"),
    ],
)
def test_an_answer_of_another_form_is_refused(text: str, reason: str) -> None:
    assert read_form(say(text), Verdict) == reason


def test_a_form_may_stand_in_a_fence_but_not_cut_off() -> None:
    text = '{"score": 4, "reason": "x"}'
    assert read_form(say(f"```json\n{text}\n```"), Verdict) == Verdict(score=4, reason="x")
    assert read_form(say(text, "length"), Verdict) == "cut off: the answer was longer than max_tokens"


def test_a_broken_form_is_asked_for_once_more_and_no_more(make_asker: Make) -> None:
    def script(text: str) -> str:
        if "cannot be read" in text:
            return '{"paraphrases": ["mended"]}' if "line 1 column 1" in text else "still broken"
        return "Sure!" if text == "question 0" else '{"paraphrase": []}'

    model = Scripted(script)
    filled = make_asker(model).fill(questions(2), GREEDY, Paraphrases)
    assert (filled[0].form, filled[0].mended) == (Paraphrases(paraphrases=["mended"]), True)
    assert filled[1].form is None and filled[1].reason.startswith("not JSON")
    assert len(model.asked) == 4
    assert filled[0].reply.digest == hashlib.sha256(b'{"paraphrases": ["mended"]}').hexdigest()


def test_a_recipe_names_an_endpoint_or_a_base_and_no_key() -> None:
    for bad in (
        {},
        {"endpoint": "http://h/v1", "model": "m", "base": "builtin:seedling"},
        {"endpoint": "http://h/v1"},
        {"endpoint": "ftp://h/v1", "model": "m"},
        {"endpoint": "http://user:secret@h/v1", "model": "m"},
        {"endpoint": "http://h/v1?key=secret", "model": "m"},
        {"base": "builtin:seedling", "prompt_usd": "-1"},
    ):
        with pytest.raises(ValueError, match=r"name|plain|http|USD"):
            ModelSpec.model_validate(bad)
    with pytest.raises(ValueError, match="critique needs a judge"):
        GenerateSpec.model_validate({"model": {"base": "builtin:seedling"}, "method": {"kind": "critique"}})


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_no_answer_however_odd_is_more_than_a_refusal(text: str) -> None:
    for form in (Verdict, Paraphrases):
        assert isinstance(read_form(say(text), form), str)


def test_a_bottomless_answer_is_refused() -> None:
    assert isinstance(read_form(say('{"paraphrases": ' + "[" * 100_000), Paraphrases), str)
