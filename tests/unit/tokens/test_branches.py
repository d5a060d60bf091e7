"""A prompt with several continuations: the same ids as each conversation alone, the prompt once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.types import Example, Message
from espalier.testing.families import FAMILIES, family_tokenizer
from espalier.tokens.branches import branch, cut
from espalier.tokens.mask import TRAINING_DAY, tokenize
from espalier.tokens.tokenizer import ChatTokenizer, train_tokenizer

WORDS = st.text(alphabet=" \n.,<>/a bCdé019", max_size=30)
# Qwen3's habit: thoughts of earlier turns are taken out once a later user turn is there, and a turn opens with more.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if loop.last or m.role != 'assistant' else m.content[:1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return train_tokenizer(["the quick brown fox 12 34. <a>b</a>"] * 20, vocabulary=300)


@st.composite
def prompts(draw: st.DrawFn) -> list[Message]:
    turns = [Message("system", draw(WORDS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        turns += [Message("user", draw(WORDS)), Message("assistant", draw(WORDS))]
    return [*turns, Message("user", draw(WORDS))]


@st.composite
def continuations(draw: st.DrawFn) -> list[Message]:
    turns = [Message("assistant", draw(WORDS))]
    for _ in range(draw(st.integers(0, 2))):
        turns += [Message("user", draw(WORDS)), Message("assistant", draw(WORDS))]
    return turns


@given(prompt=prompts(), chosen=continuations(), rejected=continuations())
def test_each_conversation_has_the_ids_it_has_alone(
    tokenizer: ChatTokenizer, prompt: list[Message], chosen: list[Message], rejected: list[Message]
) -> None:
    made = branch(tokenizer, "x", prompt, [chosen, rejected])
    for turns, answer in zip((chosen, rejected), made.answers, strict=True):
        alone = tokenizer.encode(tokenizer.render([*prompt, *turns]))
        ids = made.prompt + answer.ids
        assert ids == alone[: len(ids)]
        assert tokenizer.decode(alone[len(ids) :], skip_special=False).strip() == ""
        learnt = [i for i, weight in zip(answer.ids, answer.weights, strict=True) if weight > 0]
        said = "".join(f"{turn.content}<|im_end|>" for turn in turns if turn.role == "assistant")
        assert tokenizer.decode(learnt, skip_special=False) == said


@given(prompt=prompts(), chosen=continuations(), rejected=continuations())
def test_the_shared_prompt_is_what_serving_feeds(
    tokenizer: ChatTokenizer, prompt: list[Message], chosen: list[Message], rejected: list[Message]
) -> None:
    made = branch(tokenizer, "x", prompt, [chosen, rejected])
    assert made.prompt == tokenizer.encode_prompt(prompt)
    assert all(answer.weights[0] > 0 for answer in made.answers)


def test_continuations_that_open_differently_share_only_what_is_alike(tokenizer: ChatTokenizer) -> None:
    prompt = [Message("system", "be brief")]
    asked = [Message("user", "ab"), Message("assistant", "c")]
    other = [Message("user", "aC"), Message("assistant", "d")]
    made = branch(tokenizer, "x", prompt, [asked, other])
    for turns, answer in zip((asked, other), made.answers, strict=True):
        alone = tokenize(tokenizer, Example("x", [*prompt, *turns]), context_tokens=999)
        assert made.prompt + answer.ids == alone.ids
    assert 0 < len(made.prompt) < len(tokenizer.encode_prompt([*prompt, asked[0]]))


def test_a_template_may_rewrite_the_prompts_own_answers(tokenizer: ChatTokenizer) -> None:
    forgetful = ChatTokenizer(tokenizer.backend, FORGETFUL, tokenizer.special_tokens)
    prompt = [Message("user", "a"), Message("assistant", "long thoughts"), Message("user", "b")]
    made = branch(forgetful, "x", prompt, [[Message("assistant", "yes")], [Message("assistant", "no")]])
    assert made.prompt == forgetful.encode_prompt(prompt)
    assert "thoughts" not in forgetful.decode(made.prompt)


def test_answers_lose_their_end_and_never_the_prompt(tokenizer: ChatTokenizer) -> None:
    prompt = [Message("user", "a")]
    made = branch(tokenizer, "x", prompt, [[Message("assistant", "b c d e f")], [Message("assistant", "g")]])
    longest = len(made.prompt) + len(made.answers[0].ids)
    shorter = cut(made, longest - 2)
    assert shorter.prompt == made.prompt
    assert (shorter.answers[0].ids, shorter.answers[0].cut_tokens) == (made.answers[0].ids[:-2], 2)
    assert shorter.answers[1] == made.answers[1]
    assert cut(made, longest) is made


def test_a_prompt_that_fills_the_context_leaves_no_answer(tokenizer: ChatTokenizer) -> None:
    made = branch(tokenizer, "x", [Message("user", "a")], [[Message("assistant", "b")], [Message("assistant", "c")]])
    assert [answer.supervised for answer in cut(made, len(made.prompt)).answers] == [0, 0]


def test_a_cut_ends_with_a_supervised_token(tokenizer: ChatTokenizer) -> None:
    turns = [Message("assistant", "b"), Message("user", "c d e f"), Message("assistant", "g")]
    made = branch(tokenizer, "x", [Message("user", "a")], [turns, [Message("assistant", "h")]])
    room = len(made.prompt) + 6  # ends within the user's turn
    answer = cut(made, room).answers[0]
    assert answer.weights[-1] > 0
    assert answer.cut_tokens == len(made.prompt) + len(made.answers[0].ids) - room


def test_a_turn_of_weight_zero_in_the_continuation_is_read_only(tokenizer: ChatTokenizer) -> None:
    silent = [Message("assistant", "b", 0.0)]
    made = branch(tokenizer, "x", [Message("user", "a")], [silent, [Message("assistant", "c")]])
    assert next(answer.supervised for answer in made.answers) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_shares_what_its_template_opens(family: str) -> None:
    words = family_tokenizer(family)
    prompt = [Message("user", "The quick fox?")]
    chosen, rejected = [Message("assistant", "jumps over")], [Message("assistant", "12 lazy dogs")]
    made = branch(words, "x", prompt, [chosen, rejected])
    for turns, answer in zip((chosen, rejected), made.answers, strict=True):
        alone = tokenize(words, Example("x", [*prompt, *turns]), context_tokens=999)
        assert made.prompt + answer.ids == alone.ids
        assert answer.weights[0] > 0
    opened = words.encode(words.render(prompt, add_generation_prompt=True, on=TRAINING_DAY))
    assert made.prompt == opened
