"""What is wrong with an example, in words that can be counted: the same fault has the same words, whatever the example.

Knows messages; knows no tokenizer and no template.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from espalier.core.types import Example, Message

EMPTY = "neither messages nor text"
PAIR = "a preference pair without an answer to learn"
UNANSWERED = "ends on the user's turn, and nothing is answered"
NO_ANSWER = "no assistant's turn"
BLANK = "every answer is empty"
WEIGHTLESS = "every answer has weight 0"
NEGATIVE = "a turn has a negative weight"
NOT_A_NUMBER = "a turn's weight is not a finite number"
SPELLS_MARK = "a turn spells a special token of the model, which would end it there"
CUT_BEFORE_ANSWER = "cut off before its answer"
TOO_SHORT = "too short: no token is left to predict"

# Kept, and told.
TRAILING = "ends on the user's turn: what follows the last answer was left out"
SOME_BLANK = "an empty answer among others: it is read and not learnt"

_TURN = re.compile(r"^turn \d+: ")


class Marks:
    """The special tokens of a model, which no turn may spell: it would end there and speak as another role."""

    def __init__(self, marks: Iterable[str]) -> None:
        self._marks = [mark for mark in marks if mark]
        self._starts = {mark[:2] for mark in self._marks}  # there are hundreds of marks, and few ways to begin one

    def spelt_in(self, text: str) -> bool:
        """Whether the text holds one."""
        return any(start in text for start in self._starts) and any(mark in text for mark in self._marks)


def find_fault(example: Example, marks: Marks) -> str:
    """Why nothing can be learnt from the answers of an example; empty when something can."""
    messages = example.messages
    answers = [turn for turn in messages if turn.role == "assistant"]
    if not answers and not example.text.strip() and (example.chosen or example.rejected):
        return PAIR  # what stands before its two answers is their question
    if not messages:
        return "" if example.text.strip() else EMPTY
    weights = [turn.weight for turn in messages if turn.weight is not None]
    found = {
        UNANSWERED: not answers and messages[-1].role == "user",
        NO_ANSWER: not answers,
        NOT_A_NUMBER: any(not math.isfinite(weight) for weight in weights),
        NEGATIVE: any(weight < 0 for weight in weights),
        WEIGHTLESS: all(turn.weight == 0 for turn in answers),
        BLANK: all(turn.weight == 0 or not turn.content.strip() for turn in answers),
        SPELLS_MARK: any(marks.spelt_in(turn.content) for turn in messages),
    }
    return next((fault for fault, so in found.items() if so), "")


def still_blanks(messages: Sequence[Message]) -> tuple[list[Message], str]:
    """The messages with weight 0 on answers that say nothing, and what is odd about them (empty when nothing is)."""
    kept = [
        replace(turn, weight=0.0) if turn.role == "assistant" and not turn.content.strip() else turn
        for turn in messages
    ]
    blank = any(old is not new for old, new in zip(messages, kept, strict=True))
    return kept, SOME_BLANK if blank else TRAILING if messages[-1].role == "user" else ""


def name_refusal(message: str) -> str:
    """An error's message without which turn it was, so that the same refusal is counted once."""
    return _TURN.sub("", message).strip()
