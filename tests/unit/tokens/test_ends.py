"""What a head reads of a text: the marks always, the end of the last turn as far as there is room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.types import Message
from espalier.testing.tiny import make_tiny_base
from espalier.tokens.ends import encode_conversation, encode_question, lay_ends
from espalier.tokens.tokenizer import ChatTokenizer, load_tokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return load_tokenizer(make_tiny_base(tmp_path_factory.mktemp("words")))


def test_a_question_that_fits_is_read_as_serving_reads_it(words: ChatTokenizer) -> None:
    turns = [Message("system", "Be brief."), Message("user", "The quick fox?")]
    read = encode_question(words, turns, context_tokens=200)
    assert (read.ids, read.cut_tokens) == (words.encode_prompt(turns), 0)


@pytest.mark.parametrize("room", [40, 60, 90])
def test_a_longer_question_loses_the_end_of_its_last_turn_and_keeps_the_marks(words: ChatTokenizer, room: int) -> None:
    turns = [Message("system", "Be brief."), Message("user", "Größe of the lazy dog " * 40)]
    read = encode_question(words, turns, context_tokens=room)
    text = words.decode(read.ids, skip_special=False)
    assert room - 4 <= len(read.ids) <= room and read.cut_tokens > 0
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nGr")
    assert "\ufffd" not in text and text.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_what_is_no_question_is_refused(words: ChatTokenizer) -> None:
    with pytest.raises(InvalidInput, match="no text to judge"):
        encode_question(words, [Message("user", "  ")], context_tokens=100)
    with pytest.raises(InvalidInput, match="does not hold the conversation before"):
        encode_question(words, [Message("system", "long " * 60), Message("user", "Hi")], context_tokens=50)


def test_a_base_without_a_template_reads_the_texts(words: ChatTokenizer) -> None:
    plain = ChatTokenizer(words.backend, "", {})
    read = encode_question(plain, [Message("system", "Be brief."), Message("user", "fox " * 30)], context_tokens=20)
    assert words.decode(read.ids).startswith("Be brief.\n\nfox") and len(read.ids) == 20 and read.cut_tokens > 0


def test_a_conversation_ends_with_the_end_of_its_answer(words: ChatTokenizer) -> None:
    turns = [Message("user", "The fox?"), Message("assistant", "quick")]
    ids = encode_conversation(words, turns)
    assert words.decode(ids, skip_special=False).endswith("assistant\nquick<|im_end|>")
    with pytest.raises(InvalidInput, match="does not end with one"):
        encode_conversation(words, turns[:1])


@given(st.lists(st.lists(st.integers(3, 200), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(0, 5))
def test_every_sequences_last_token_predicts_its_target(sequences: list[list[int]], shared: int) -> None:
    prompt = list(range(100, 100 + shared))
    targets = list(range(len(sequences)))
    strip = lay_ends("x", prompt, sequences, targets, [1.0] * len(sequences))
    assert strip.targets.tolist() == targets and strip.sequences.tolist() == targets
    assert [int(strip.ids[row]) for row in strip.rows] == [sequence[-1] for sequence in sequences]
    assert len(strip) == shared + sum(map(len, sequences))
