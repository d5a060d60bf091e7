"""Chats of every family: the ids of transformers, loss on exactly the answers and their ends, whatever the template."""

from __future__ import annotations

import itertools
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from espalier.core.errors import InvalidInput
from espalier.core.types import Message
from espalier.testing.families import FAMILIES, family_tokenizer
from espalier.tokens.mask import TRAINING_DAY, Supervised, supervise, supervise_all
from espalier.tokens.tokenizer import ChatTokenizer, save_tokenizer

SYSTEM = Message("system", "Answer in one word.")
TURNS = [
    Message("user", "Is the fox quick?"),
    Message("assistant", "Yes, quick."),
    Message("user", "And the dog?"),
    Message("assistant", "No, lazy."),
]
# What ends a turn, which need not be what ends a text.
ENDS = {
    "llama-3": "<|eot_id|>",
    "gemma-2": "<end_of_turn>",
    "gemma-3": "<end_of_turn>",
    "mistral": "</s>",
    "mixtral": "</s>",
    "phi": "<|end|>",
}
REWRITES = {"qwen-3", "qwen-3-moe"}  # earlier turns, whatever the conversation
REWRITES_SYSTEM = {"mistral"}  # earlier turns, where there is a system message
WITHOUT_SYSTEM = {"mixtral", "gemma-2"}  # a template that takes no system message


@pytest.fixture(scope="module")
def ours() -> dict[str, ChatTokenizer]:
    return {name: family_tokenizer(name) for name in FAMILIES}


@pytest.fixture(scope="module")
def theirs(
    ours: dict[str, ChatTokenizer], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, PreTrainedTokenizerBase]:
    found = {}
    for name, tokenizer in ours.items():
        folder: Path = tmp_path_factory.mktemp(name)
        save_tokenizer(tokenizer, folder, context_tokens=512)
        found[name] = AutoTokenizer.from_pretrained(folder)
    return found


def _documents(tokenizer: ChatTokenizer, turns: list[Message]) -> list[Supervised]:
    def encode_all(texts: Any) -> Any:
        import numpy as np

        return [np.asarray(tokenizer.encode(text), np.int32) for text in texts]

    found = supervise_all(tokenizer, [turns], encode_all)[0]
    assert isinstance(found, list)
    return found


def _rows(turns: list[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _reference(
    tokenizer: PreTrainedTokenizerBase, turns: list[Message], *, said: str = "", **options: Any
) -> list[int]:
    """What transformers makes of the turns on the day of training, and of what is `said` after them."""
    days = [date.today()]
    text = str(tokenizer.apply_chat_template(_rows(turns), tokenize=False, **options))
    days.append(date.today())  # it may be midnight in between
    for day, form in itertools.product(days, ("%d %b %Y", "%d %B %Y")):
        text = text.replace(f"{day:{form}}", f"{TRAINING_DAY:{form}}")
    return list(tokenizer(text + said, add_special_tokens=False)["input_ids"])


def _learnt(tokenizer: ChatTokenizer, document: Supervised) -> str:
    ids, weights = document
    return tokenizer.decode([int(i) for i, w in zip(ids, weights, strict=True) if w > 0], skip_special=False)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("system", [False, True])
def test_ids_are_those_of_transformers_and_each_answer_is_learnt_once(
    name: str, system: bool, ours: dict[str, ChatTokenizer], theirs: dict[str, PreTrainedTokenizerBase]
) -> None:
    tokenizer = ours[name]
    turns = [SYSTEM, *TURNS] if system else TURNS
    as_written = turns
    if system and name in WITHOUT_SYSTEM:
        as_written = [Message("user", f"{SYSTEM.content}\n\n{TURNS[0].content}"), *TURNS[1:]]
    documents = _documents(tokenizer, turns)
    split = name in REWRITES or (system and name in REWRITES_SYSTEM)
    assert len(documents) == (2 if split else 1)
    until = [len(as_written) - 2, len(as_written)] if split else [len(as_written)]
    for document, end in zip(documents, until, strict=True):
        whole = _reference(theirs[name], as_written[:end])
        if system and name in REWRITES_SYSTEM:  # whole conversations come out of it without the system's words
            said = f" {as_written[end - 1].content}</s>"
            whole = _reference(theirs[name], as_written[: end - 1], said=said)
        assert document[0].tolist() == whole[: len(document[0])]
        assert len(whole) - len(document[0]) <= 2  # a newline, or an end of text after the end of the turn
    mark = ENDS.get(name, "<|im_end|>")
    thoughts = "<think>\n\n</think>\n\n" if name in REWRITES else ""
    learnt = "".join(_learnt(tokenizer, document) for document in documents).replace(" No", "No").lstrip()
    assert learnt == f"{thoughts}Yes, quick.{mark}{thoughts}No, lazy.{mark}"


@pytest.mark.parametrize("name", FAMILIES)
def test_what_stands_before_an_answer_is_what_serving_feeds(
    name: str, ours: dict[str, ChatTokenizer], theirs: dict[str, PreTrainedTokenizerBase]
) -> None:
    turns = [Message("user", "Say it."), Message("assistant", "It.")]
    ((ids, weights),) = _documents(ours[name], turns)
    prompt = _reference(theirs[name], turns[:1], add_generation_prompt=True)
    assert ids[: len(prompt)].tolist() == prompt
    assert not weights[: len(prompt)].any()
    assert weights[len(prompt) :].all()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_end_of_a_turn_is_the_templates_and_not_always_eos(name: str, ours: dict[str, ChatTokenizer]) -> None:
    tokenizer = ours[name]
    assert tokenizer.turn_end == ENDS.get(name, "<|im_end|>")
    assert tokenizer.turn_end_id == tokenizer.backend.token_to_id(tokenizer.turn_end)
    assert (tokenizer.turn_end_id == tokenizer.eos_id) == (name not in {"llama-3", "gemma-2", "gemma-3", "phi"})


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answers_own_weight_is_that_of_its_tokens_and_of_its_end(name: str, ours: dict[str, ChatTokenizer]) -> None:
    turns = [TURNS[0], Message("assistant", "Yes, quick.", 0.25), TURNS[2], Message("assistant", "No, lazy.", 2.0)]
    weights = [weight for _, weights in _documents(ours[name], turns) for weight in weights.tolist() if weight]
    assert set(weights) == {0.25, 2.0}
    assert weights == sorted(weights)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_of_weight_zero_is_read_as_the_template_has_it_and_needs_no_document(
    name: str, ours: dict[str, ChatTokenizer], theirs: dict[str, PreTrainedTokenizerBase]
) -> None:
    turns = [TURNS[0], Message("assistant", "Yes, quick.", 0.0), *TURNS[2:]]
    ((ids, _),) = _documents(ours[name], turns)
    assert ids.tolist() == _reference(theirs[name], turns)[: len(ids)]


@pytest.mark.parametrize("name", ["mistral", "mixtral", "gemma-2", "gemma-3"])
def test_roles_that_do_not_alternate_are_refused_in_the_templates_words(
    name: str, ours: dict[str, ChatTokenizer]
) -> None:
    with pytest.raises(InvalidInput, match="must alternate") as refusal:
        supervise(ours[name], [TURNS[0], TURNS[2], TURNS[3]])
    assert "user, user, assistant" in refusal.value.hint or "user, user" in refusal.value.hint


def test_thoughts_of_the_answer_to_the_last_question_are_learnt_and_earlier_ones_are_not_read(
    ours: dict[str, ChatTokenizer],
) -> None:
    thinking = [
        TURNS[0],
        Message("assistant", "<think>\nfoxes run\n</think>\n\nYes."),
        TURNS[2],
        Message("assistant", "<think>\ndogs lie\n</think>\n\nNo."),
    ]
    first, second = _documents(ours["qwen-3"], thinking)
    assert _learnt(ours["qwen-3"], first) == "<think>\nfoxes run\n</think>\n\nYes.<|im_end|>"
    assert _learnt(ours["qwen-3"], second) == "<think>\ndogs lie\n</think>\n\nNo.<|im_end|>"
    assert "foxes" not in ours["qwen-3"].decode(second[0].tolist())


def test_one_document_cannot_be_asked_of_a_template_that_rewrites(ours: dict[str, ChatTokenizer]) -> None:
    with pytest.raises(InvalidInput, match="rewrites earlier turns"):
        supervise(ours["qwen-3"], TURNS)


def test_an_answer_opened_otherwise_than_written_is_refused(ours: dict[str, ChatTokenizer]) -> None:
    plain = ours["qwen-2.5"]
    forced = ChatTokenizer(
        plain.backend, plain.template.replace("assistant\\n' }}", "assistant\\n<think>' }}"), plain.special_tokens
    )
    with pytest.raises(InvalidInput, match="opens an answer otherwise than it writes one"):
        supervise(forced, TURNS)


def test_the_date_in_a_template_is_fixed_in_training_and_todays_in_serving(ours: dict[str, ChatTokenizer]) -> None:
    tokenizer = ours["llama-3"]
    ids, _ = supervise(tokenizer, TURNS)
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(ids)
    assert "Today Date: 26 Jul 2024" not in tokenizer.render(TURNS)


TEXTS = st.text(alphabet="ab .\nC1é", max_size=12)


@given(asked=TEXTS, said=TEXTS, name=st.sampled_from(["llama-3", "mistral", "gemma-3", "phi", "smollm-3"]))
@settings(deadline=None, max_examples=60)
def test_no_text_moves_the_border_between_prompt_and_answer(
    ours: dict[str, ChatTokenizer], asked: str, said: str, name: str
) -> None:
    tokenizer = ours[name]
    turns = [Message("user", asked), Message("assistant", said)]
    ((ids, weights),) = _documents(tokenizer, turns)
    prompt = tokenizer.encode(tokenizer.render(turns[:1], add_generation_prompt=True, on=TRAINING_DAY))
    assert ids[: len(prompt)].tolist() == prompt
    assert [bool(weight) for weight in weights] == [False] * len(prompt) + [True] * (len(ids) - len(prompt))
    assert ids[-1] == tokenizer.turn_end_id
