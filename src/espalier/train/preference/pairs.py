"""Examples -> strips with one sequence for each judged answer; the prompt they share is laid out once.

A pair too long for the context keeps its whole prompt, and its answers lose their ends (TRL's `keep_start`); where that
leaves no answer, or two that are the same, there is nothing to compare and the pair is dropped. Knows tokenizers and
templates; knows no file and no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from espalier.core.types import Example, Message
from espalier.tokens.branches import Branches, branch, cut
from espalier.tokens.pack import Strip, lay_branches
from espalier.tokens.tokenizer import ChatTokenizer
from espalier.train import faults
from espalier.train.laying import Laid, Laying, lay_each

DESIRABLE, UNDESIRABLE, FOREIGN = 1, 0, -1  # verdicts on a sequence; a foreign answer belongs to another prompt
VERDICT_TAG = "desirable"  # of an example with one answer: "true" or "false"

NO_PAIR = "no preference pair: it has no chosen and rejected answer"
NO_PROMPT = "a preference pair without a prompt"
ALIKE = "chosen and rejected are the same"
CUT_ALIKE = "chosen and rejected are the same once cut off"
NO_VERDICT = "no verdict: neither a preference pair nor an answer with the tag `desirable`"


def pairs(tokenizer: ChatTokenizer, *, context_tokens: int, prompt_nll: bool = False) -> Laying:
    """Strips of two sequences, chosen and rejected; with `prompt_nll` a third, the prompt's own tokens."""
    reader = _Reader(tokenizer, context_tokens)
    names = ("chosen", "rejected", *(["prompt"] if prompt_nll else []))

    def lay(example: Example) -> Laid:
        laid = reader.lay_pair(example)
        return replace(laid, strips=tuple(map(add_prompt, laid.strips))) if prompt_nll else laid

    return lay_each(f"pairs/1/{context_tokens}/{prompt_nll}", lay, sequences=names)


def verdicts(tokenizer: ChatTokenizer, *, context_tokens: int) -> Laying:
    """Strips of one sequence for each judged answer (a pair has two), and the extra `verdict` of each."""
    reader = _Reader(tokenizer, context_tokens)

    def lay(example: Example) -> Laid:
        if example.chosen or example.rejected:
            return _judged(reader.lay_pair(example), [DESIRABLE, UNDESIRABLE])
        verdict = {"true": DESIRABLE, "false": UNDESIRABLE}.get(example.tags.get(VERDICT_TAG, ""))
        if verdict is None:
            return Laid(dropped=NO_VERDICT)
        return _judged(reader.lay_answer(example), [verdict])

    return lay_each(f"verdicts/1/{context_tokens}", lay)


def add_prompt(strip: Strip) -> Strip:
    """The strip with one more sequence: the prompt's tokens but the first, each predicted by the one before it."""
    length = int(strip.segments[0, 1])
    rows = np.arange(length - 1, dtype=np.int32)
    return replace(
        strip,
        rows=np.concatenate([strip.rows, rows]),
        targets=np.concatenate([strip.targets, strip.ids[1:length]]),
        weights=np.concatenate([strip.weights, np.ones(length - 1, np.float32)]),
        sequences=np.concatenate([strip.sequences, np.full(length - 1, strip.sequences[-1] + 1, np.int32)]),
    )


class _Reader:
    """Examples of one tokenizer and one context."""

    def __init__(self, tokenizer: ChatTokenizer, context_tokens: int) -> None:
        self._tokenizer, self._context = tokenizer, context_tokens
        added = tokenizer.backend.get_added_tokens_decoder().values()
        self._marks = faults.Marks(token.content for token in added if token.special)

    def lay_pair(self, example: Example) -> Laid:
        """chosen and rejected after `messages`."""
        if not (example.chosen and example.rejected):
            return Laid(dropped=NO_PAIR)
        if example.chosen == example.rejected:
            return Laid(dropped=ALIKE)
        return self._lay(example.id, example.messages, [example.chosen, example.rejected])

    def lay_answer(self, example: Example) -> Laid:
        """The last message after all before it."""
        return self._lay(example.id, example.messages[:-1], [example.messages[-1:]])

    def _lay(self, id: str, prompt: Sequence[Message], continuations: Sequence[list[Message]]) -> Laid:
        if not prompt:
            return Laid(dropped=NO_PROMPT)
        if any(self._marks.spelt_in(turn.content) for turn in prompt):
            return Laid(dropped=faults.SPELLS_MARK)
        for turns in continuations:
            if fault := faults.find_fault(Example(id, turns), self._marks):
                return Laid(dropped=fault)
        whole = branch(self._tokenizer, id, prompt, continuations)
        kept = cut(whole, self._context)
        lost = sum(answer.cut_tokens for answer in kept.answers)
        fault = _find_fault(whole, kept)
        if fault:
            return Laid(dropped=fault, cut_tokens=lost)
        answers = [(answer.ids, answer.weights) for answer in kept.answers]
        return Laid((lay_branches(id, kept.prompt, answers),), cut_tokens=lost)


def _find_fault(whole: Branches, kept: Branches) -> str:
    if not kept.prompt:
        return NO_PROMPT
    if not all(answer.ids for answer in kept.answers):
        return faults.CUT_BEFORE_ANSWER
    if len(kept.answers) == 1 or kept.answers[0].ids != kept.answers[1].ids:
        return ""
    return ALIKE if whole.answers[0].ids == whole.answers[1].ids else CUT_ALIKE


def _judged(laid: Laid, given: Sequence[int]) -> Laid:
    extras = {"verdict": np.asarray(given, np.int32)}
    return replace(laid, strips=tuple(replace(strip, extras=extras) for strip in laid.strips))
