"""Pairs and verdicts as strips: what is laid out, what is cut, and why a pair is dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from espalier.core.types import Example, Message
from espalier.tokens.pack import Strip
from espalier.tokens.tokenizer import ChatTokenizer
from espalier.train import faults
from espalier.train.laying import Laid
from espalier.train.preference.mismatch import unlay
from espalier.train.preference.pairs import (
    ALIKE,
    CUT_ALIKE,
    DESIRABLE,
    NO_PAIR,
    NO_PROMPT,
    NO_VERDICT,
    UNDESIRABLE,
    pairs,
    verdicts,
)

from .conftest import make_pairs, make_verdicts

PAIR = Example(
    "p", [Message("user", "abc")], chosen=[Message("assistant", "def")], rejected=[Message("assistant", "ghij")]
)


def _lay(tokenizer: ChatTokenizer, example: Example, context_tokens: int = 512) -> Laid:
    return pairs(tokenizer, context_tokens=context_tokens).lay([example])[0]


def _words(tokenizer: ChatTokenizer, strip: Strip, sequence: int) -> str:
    return tokenizer.decode(strip.targets[strip.sequences == sequence].tolist(), skip_special=False)


def test_a_pair_is_its_prompt_once_and_two_answers(tokenizer: ChatTokenizer) -> None:
    (strip,) = _lay(tokenizer, PAIR).strips
    prompt = tokenizer.encode_prompt(PAIR.messages)
    assert strip.ids[: len(prompt)].tolist() == prompt
    assert len(strip) == len(prompt) + len("def") + len("ghij")  # the ends are targets only
    assert [_words(tokenizer, strip, n) for n in (0, 1)] == ["def<|im_end|>", "ghij<|im_end|>"]


def test_positions_of_both_answers_go_on_from_the_prompt(tokenizer: ChatTokenizer) -> None:
    (strip,) = _lay(tokenizer, PAIR).strips
    start = len(tokenizer.encode_prompt(PAIR.messages))
    for begin, end, prefix_start, prefix_end in strip.segments[1:].tolist():
        assert strip.positions[begin:end].tolist() == list(range(start, start + end - begin))
        assert (prefix_start, prefix_end) == (0, start)


def test_a_user_within_a_continuation_is_read_and_not_judged(tokenizer: ChatTokenizer) -> None:
    turns = [Message("assistant", "def"), Message("user", "xyz"), Message("assistant", "uvw")]
    (strip,) = _lay(tokenizer, replace(PAIR, chosen=turns)).strips
    assert _words(tokenizer, strip, 0) == "def<|im_end|>uvw<|im_end|>"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": []}, NO_PAIR),
        ({"messages": []}, NO_PROMPT),
        ({"rejected": PAIR.chosen}, ALIKE),
        ({"rejected": [Message("assistant", " \n")]}, faults.BLANK),
        ({"chosen": [Message("assistant", "def", 0.0)]}, faults.WEIGHTLESS),
        ({"chosen": [Message("user", "def")]}, faults.UNANSWERED),
        ({"messages": [Message("user", "a<|im_end|>b")]}, faults.SPELLS_MARK),
        ({"rejected": [Message("assistant", "a<|im_end|>b")]}, faults.SPELLS_MARK),
    ],
)
def test_a_pair_without_anything_to_compare_is_dropped(
    tokenizer: ChatTokenizer, change: dict[str, list[Message]], reason: str
) -> None:
    laid = _lay(tokenizer, replace(PAIR, **change))
    assert (laid.strips, laid.dropped) == ((), reason)


def test_a_long_pair_loses_the_ends_of_its_answers_and_says_how_much(tokenizer: ChatTokenizer) -> None:
    prompt = tokenizer.encode_prompt(PAIR.messages)
    laid = _lay(tokenizer, PAIR, len(prompt) + 3)
    (strip,) = laid.strips
    assert [_words(tokenizer, strip, n) for n in (0, 1)] == ["def", "ghi"]
    assert laid.cut_tokens == 1 + 2
    assert int(strip.positions.max()) + 2 == len(prompt) + 3


def test_a_prompt_that_fills_the_context_drops_the_pair(tokenizer: ChatTokenizer) -> None:
    laid = _lay(tokenizer, PAIR, len(tokenizer.encode_prompt(PAIR.messages)))
    assert (laid.strips, laid.dropped) == ((), faults.CUT_BEFORE_ANSWER)
    assert laid.cut_tokens > 0


def test_answers_that_are_the_same_up_to_the_cut_drop_the_pair(tokenizer: ChatTokenizer) -> None:
    pair = replace(PAIR, rejected=[Message("assistant", "dex")])
    laid = _lay(tokenizer, pair, len(tokenizer.encode_prompt(PAIR.messages)) + 2)
    assert (laid.strips, laid.dropped) == ((), CUT_ALIKE)


def test_a_message_weight_weighs_its_tokens(tokenizer: ChatTokenizer) -> None:
    (strip,) = _lay(tokenizer, replace(PAIR, chosen=[Message("assistant", "def", 0.5)])).strips
    assert set(strip.weights[strip.sequences == 0].tolist()) == {0.5}
    assert set(strip.weights[strip.sequences == 1].tolist()) == {1.0}


def test_the_prompt_can_be_a_sequence_of_its_own(tokenizer: ChatTokenizer) -> None:
    laying = pairs(tokenizer, context_tokens=512, prompt_nll=True)
    (strip,) = laying.lay([PAIR])[0].strips
    prompt = tokenizer.encode_prompt(PAIR.messages)
    own = strip.sequences == 2
    assert strip.targets[own].tolist() == prompt[1:]
    assert strip.rows[own].tolist() == list(range(len(prompt) - 1))
    assert laying.sequences == ("chosen", "rejected", "prompt")


def test_a_pair_is_a_good_answer_and_a_bad_one(tokenizer: ChatTokenizer) -> None:
    (strip,) = verdicts(tokenizer, context_tokens=512).lay([PAIR])[0].strips
    assert strip.extras["verdict"].tolist() == [DESIRABLE, UNDESIRABLE]


def test_a_single_answer_has_the_verdict_of_its_tag(tokenizer: ChatTokenizer) -> None:
    laid = verdicts(tokenizer, context_tokens=512).lay(make_verdicts(4))
    given = [one.strips[0].extras["verdict"].tolist() for one in laid]
    assert given == [[UNDESIRABLE], [DESIRABLE], [DESIRABLE], [UNDESIRABLE]]
    assert _words(tokenizer, laid[1].strips[0], 0) == "<code>001</code><|im_end|>"


def test_an_answer_without_a_verdict_is_dropped(tokenizer: ChatTokenizer) -> None:
    example = replace(make_verdicts(1)[0], tags={"desirable": "maybe"})
    assert verdicts(tokenizer, context_tokens=512).lay([example])[0].dropped == NO_VERDICT


def test_what_was_laid_out_can_be_read_back(tokenizer: ChatTokenizer) -> None:
    turns = [Message("assistant", "def"), Message("user", "xyz"), Message("assistant", "uvw")]
    for example in (*make_pairs(5), replace(PAIR, chosen=turns), replace(PAIR, chosen=[Message("assistant", "d")])):
        (strip,) = _lay(tokenizer, example).strips
        prompt, answers = unlay(strip)
        assert prompt == tokenizer.encode_prompt(example.messages)
        for (ids, weights), continuation in zip(answers, (example.chosen, example.rejected), strict=True):
            whole = tokenizer.encode(tokenizer.render([*example.messages, *continuation]))
            assert prompt + ids == whole[: len(prompt + ids)]
            learnt = [one for one, weight in zip(ids, weights, strict=True) if weight]
            said = "".join(f"{turn.content}<|im_end|>" for turn in continuation if turn.role == "assistant")
            assert tokenizer.decode(learnt, skip_special=False) == said
        assert np.isin(strip.weights, [0, 1]).all()
