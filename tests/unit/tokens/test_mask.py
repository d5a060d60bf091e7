"""Supervision masks: exactly the assistant's words carry loss, and the ids before an answer are what serving feeds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.tokens.mask import supervise, supervise_text, tokenize
from espalier.tokens.tokenizer import ChatTokenizer, train_tokenizer

WORDS = st.text(alphabet=" \n.,<>/a bCdé019", max_size=30)


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return train_tokenizer(["the quick brown fox 12 34. <a>b</a>"] * 20, vocabulary=300)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    turns = [Message("system", draw(WORDS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Message("user", draw(WORDS)), Message("assistant", draw(WORDS))]
    return turns


@given(turns=conversations())
@settings(deadline=None)
def test_each_answer_follows_the_very_ids_that_serving_feeds(tokenizer: ChatTokenizer, turns: list[Message]) -> None:
    ids, _ = supervise(tokenizer, turns)
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            prompt = tokenizer.encode_prompt(turns[:index])
            answer = tokenizer.encode(turn.content)
            assert ids[: len(prompt)] == prompt
            assert ids[len(prompt) : len(prompt) + len(answer) + 1] == [*answer, tokenizer.eos_id]


@given(turns=conversations())
@settings(deadline=None)
def test_the_weighted_tokens_spell_the_answers_and_their_ends(tokenizer: ChatTokenizer, turns: list[Message]) -> None:
    ids, weights = supervise(tokenizer, turns)
    learnt = tokenizer.decode([i for i, w in zip(ids, weights, strict=True) if w > 0], skip_special=False)
    assert learnt == "".join(f"{turn.content}<|im_end|>" for turn in turns if turn.role == "assistant")


@given(turns=conversations())
@settings(deadline=None)
def test_the_ids_are_those_of_the_whole_conversation_to_its_last_answers_end(
    tokenizer: ChatTokenizer, turns: list[Message]
) -> None:
    assert supervise(tokenizer, turns)[0] == tokenizer.encode(tokenizer.render(turns).removesuffix("\n"))


def test_a_turn_of_weight_zero_is_read_and_not_learnt(tokenizer: ChatTokenizer) -> None:
    turns = [Message("user", "a"), Message("assistant", "bad", 0.0), Message("user", "b"), Message("assistant", "good")]
    ids, weights = supervise(tokenizer, turns)
    learnt = tokenizer.decode([i for i, w in zip(ids, weights, strict=True) if w > 0])
    assert learnt == "good"


def test_text_is_learnt_from_its_second_token_to_its_end(tokenizer: ChatTokenizer) -> None:
    ids, weights = supervise_text(tokenizer, "the fox")
    assert ids[-1] == tokenizer.eos_id
    assert weights == [0.0, *[1.0] * (len(ids) - 1)]
    assert supervise_text(tokenizer, "") == ([], [])


def test_a_long_example_loses_its_end_and_says_how_much(tokenizer: ChatTokenizer) -> None:
    example = Example("x", [Message("user", "a"), Message("assistant", "b c d e f g")])
    whole = tokenize(tokenizer, example, context_tokens=1000)
    cut = tokenize(tokenizer, example, context_tokens=len(whole.ids) - 2)
    assert (whole.dropped_tokens, cut.dropped_tokens) == (0, 2)
    assert cut.ids == whole.ids[:-2]


def test_what_follows_the_last_supervised_token_is_dropped(tokenizer: ChatTokenizer) -> None:
    example = Example("x", [Message("user", "a"), Message("assistant", "b"), Message("user", "long tail " * 9)])
    assert tokenize(tokenizer, example, context_tokens=1000).ids[-1] == tokenizer.eos_id


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: ChatTokenizer) -> None:
    forgetful = ChatTokenizer(
        tokenizer.backend,
        "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
        tokenizer.special_tokens,
    )
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    with pytest.raises(InvalidInput, match="rewrites earlier turns"):
        supervise(forgetful, turns)
