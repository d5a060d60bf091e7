"""Foreign answers for KTO's reference point: whose, how many, how long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from espalier.core.types import Example
from espalier.tokens.pack import join
from espalier.tokens.tokenizer import ChatTokenizer
from espalier.train.plan import Strips
from espalier.train.preference.mismatch import Mismatched, unlay
from espalier.train.preference.pairs import FOREIGN, verdicts
from espalier.train.preference.part import take_sequences

from .conftest import make_pairs, make_verdicts


def _documents(tokenizer: ChatTokenizer, examples: Sequence[Example], context_tokens: int = 512) -> Strips:
    laid = verdicts(tokenizer, context_tokens=context_tokens).lay(examples)
    return Strips([strip for one in laid for strip in one.strips])


def test_every_answer_has_a_foreign_one_of_another_prompt(tokenizer: ChatTokenizer) -> None:
    documents = _documents(tokenizer, [*make_pairs(5), *make_verdicts(5)])
    mismatched = Mismatched(documents, 512)
    told = [unlay(documents.strip(i)) for i in range(len(documents))]
    for number in range(len(mismatched)):
        strip = mismatched.strip(number)
        prompt, answers = unlay(strip)
        own = told[number]
        assert (prompt, answers[: len(own[1])]) == own
        foreign = answers[len(own[1]) :]
        assert len(foreign) == len(own[1])
        assert any(foreign[0] in others for _, others in told)
        assert any(foreign[0] in others for other, others in told if other != prompt)
        assert strip.extras["verdict"].tolist()[len(own[1]) :] == [FOREIGN] * len(own[1])
        assert mismatched.lengths[number] == len(strip)


def test_all_answers_are_lent_where_all_documents_have_as_many(tokenizer: ChatTokenizer) -> None:
    mismatched = Mismatched(_documents(tokenizer, make_verdicts(9)), 512)
    told = [unlay(mismatched.strip(i))[1] for i in range(9)]
    assert sorted(answers[1][0] for answers in told) == sorted(answers[0][0] for answers in told)


def test_a_neighbour_with_the_same_prompt_is_passed_over(tokenizer: ChatTokenizer) -> None:
    twice = [example for example in make_verdicts(4) for _ in range(2)]
    documents = _documents(tokenizer, twice)
    mismatched = Mismatched(documents, 512)
    for number in range(len(mismatched)):
        prompt, (_, foreign) = unlay(mismatched.strip(number))
        lenders = [unlay(documents.strip(i)) for i in range(len(documents))]
        assert any(foreign in answers and other != prompt for other, answers in lenders)


def test_a_foreign_answer_is_cut_to_the_context(tokenizer: ChatTokenizer) -> None:
    examples = make_verdicts(8)
    longest = max(len(strip) for strip in _documents(tokenizer, examples).strips) + 1
    mismatched = Mismatched(_documents(tokenizer, examples, longest), longest)
    for number in range(len(mismatched)):
        prompt, answers = unlay(mismatched.strip(number))
        assert all(len(prompt) + len(ids) <= longest for ids, _ in answers)
        assert all(any(weights) for _, weights in answers)


def test_a_part_of_a_pack_is_what_its_sequences_would_be_alone(tokenizer: ChatTokenizer) -> None:
    mismatched = Mismatched(_documents(tokenizer, [*make_pairs(4), *make_verdicts(4)]), 512)
    strips = [mismatched.strip(i) for i in range(len(mismatched))]
    pack = join(strips, seed=5)
    for wanted in (pack.extras["verdict"] == FOREIGN, pack.extras["verdict"] != FOREIGN):
        part = take_sequences(pack, wanted)
        assert part.tokens < pack.tokens
        assert part.sequence_count == int(wanted.sum())
        assert part.seed == pack.seed
        kept = [_seen(pack.ids, pack.segments, row) for row in pack.rows[wanted[pack.sequences]]]
        assert [_seen(part.ids, part.segments, row) for row in part.rows] == kept
        assert part.positions[part.rows].tolist() == pack.positions[pack.rows[wanted[pack.sequences]]].tolist()
        assert part.targets.tolist() == pack.targets[wanted[pack.sequences]].tolist()
        assert part.segments[0, 0] == 0 and part.segments[-1, 1] == part.tokens
        assert (part.segments[1:, 0] == part.segments[:-1, 1]).all()


def _seen(ids: np.ndarray, segments: np.ndarray, row: int) -> list[int]:  # type: ignore[type-arg]
    """The tokens a position attends to, in order."""
    start, _, prefix_start, prefix_end = next(s for s in segments.tolist() if s[0] <= row < s[1])
    return [*ids[prefix_start:prefix_end].tolist(), *ids[start : row + 1].tolist()]
