"""Messages -> ids with a loss weight for each: only what the assistant is to learn to say carries weight.

The ids before an answer are exactly `encode_prompt` of what stands before it: what serving will feed. That is so by
construction for the first answer and checked for each later one, so training and serving can never cut a conversation
differently.

Legend: n tokens of a document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.tokens.tokenizer import ChatTokenizer

Ids: TypeAlias = npt.NDArray[np.int32]
Weights: TypeAlias = npt.NDArray[np.float32]
EncodeAll: TypeAlias = Callable[[Sequence[str]], Sequence[Ids]]  # ids of many texts at once
Supervised: TypeAlias = tuple[Ids, Weights]


@dataclass(slots=True)
class Tokenized:
    """One document: `weights[i]` is the loss weight of predicting `ids[i]`; the first is always 0."""

    id: str
    ids: list[int]
    weights: list[float]
    dropped_tokens: int = 0  # cut off because the context ended

    @property
    def supervised(self) -> int:
        """How many tokens carry loss."""
        return sum(weight > 0 for weight in self.weights)


class Piece(NamedTuple):
    """One answer of a conversation, as text."""

    prompt: str  # what stands between the answer before (or the start) and this one
    answer: str  # the answer, its end, and what the template writes after that
    weight: float
    before: str  # all that stands before the answer
    turn: int  # which message it is, from 0


def tokenize(tokenizer: ChatTokenizer, example: Example, *, context_tokens: int) -> Tokenized:
    """Ids and weights of one example, cut to `context_tokens` at its end. Messages win over raw text.

    Raises InvalidInput when a later turn changes how an earlier one is cut.
    """
    if example.messages:
        ids, weights = supervise(tokenizer, example.messages)
    else:
        ids, weights = supervise_text(tokenizer, example.text)
    end = max((i + 1 for i, weight in enumerate(weights) if weight > 0), default=0)
    kept = min(end, context_tokens)  # what follows the last supervised token cannot change the loss
    return Tokenized(example.id, ids[:kept], weights[:kept], dropped_tokens=max(0, end - context_tokens))


def supervise(
    tokenizer: ChatTokenizer, messages: Sequence[Message], *, first: int = 0
) -> tuple[list[int], list[float]]:
    """Ids and weights of a conversation: assistant turns and their ends 1 (or the message's own weight), all else 0.

    Turns before message `first` carry no weight and are not checked one by one. Raises InvalidInput when a later turn
    changes how an earlier one is cut.
    """
    pieces = cut_answers(tokenizer, messages, first=first)
    encoded = iter([tokenizer.encode(text) for text in _texts_of(pieces)])
    ids, weights = _assemble(pieces, (np.asarray(one, np.int32) for one in encoded), tokenizer.eos_id)
    return ids.tolist(), weights.tolist()


def supervise_all(
    tokenizer: ChatTokenizer, conversations: Sequence[Sequence[Message]], encode_all: EncodeAll
) -> list[Supervised | InvalidInput]:
    """`supervise` of many conversations, whose texts are encoded together; what it would raise stands in its place."""
    cut: list[list[Piece] | InvalidInput] = []
    for messages in conversations:
        try:
            cut.append(cut_answers(tokenizer, messages))
        except InvalidInput as error:
            cut.append(error)
    encoded = iter(encode_all([text for pieces in cut if isinstance(pieces, list) for text in _texts_of(pieces)]))
    end, made = tokenizer.eos_id, list[Supervised | InvalidInput]()
    for pieces in cut:
        if isinstance(pieces, InvalidInput):
            made.append(pieces)
            continue
        own = [next(encoded) for _ in _texts_of(pieces)]
        try:
            made.append(_assemble(pieces, iter(own), end))
        except InvalidInput as error:
            made.append(error)
    return made


def supervise_text(tokenizer: ChatTokenizer, text: str) -> tuple[list[int], list[float]]:
    """Raw text: every token but the first is learnt, and an end token when the model has one."""
    ids = tokenizer.encode(text)
    if ids and tokenizer.eos_id is not None:
        ids = [*ids, tokenizer.eos_id]
    return ids, [0.0, *[1.0] * (len(ids) - 1)] if ids else []


def cut_answers(tokenizer: ChatTokenizer, messages: Sequence[Message], *, first: int = 0) -> list[Piece]:
    """The conversation's text, cut where each of its answers from message `first` on begins.

    Raises InvalidInput when the template refuses the messages, or writes earlier turns anew when later ones follow.
    """
    pieces: list[Piece] = []
    done = ""
    for index, message in enumerate(messages):
        if message.role != "assistant" or index < first:
            continue
        before = tokenizer.render(messages[:index], add_generation_prompt=True)
        after = tokenizer.render(messages[: index + 1])
        if not (before.startswith(done) and after.startswith(before)):
            raise InvalidInput(
                f"turn {index + 1}: the chat template rewrites earlier turns, so their loss cannot be placed",
                hint="split the conversation into one example per answer",
            )
        weight = 1.0 if message.weight is None else message.weight
        pieces.append(Piece(before[len(done) :], after[len(before) :], weight, before, index))
        done = after
    return pieces


def _texts_of(pieces: Sequence[Piece]) -> list[str]:
    """What has to be encoded, in the order `_assemble` takes it: later answers also with all before, to check."""
    return [
        text
        for number, piece in enumerate(pieces)
        for text in ((piece.prompt, piece.answer, piece.before) if number else (piece.prompt, piece.answer))
    ]


def _assemble(pieces: Sequence[Piece], encoded: Iterator[Ids], end: int | None) -> Supervised:
    """Ids (n,) and weights (n,) from the pieces' ids."""
    ids = [np.zeros(0, np.int32)]
    weights = [np.zeros(0, np.float32)]
    for number, piece in enumerate(pieces):
        prompt, answer = next(encoded), next(encoded)
        ids.append(prompt)
        if number and not np.array_equal(np.concatenate(ids), next(encoded)):
            raise InvalidInput(
                f"turn {piece.turn + 1}: the tokenizer joins text across a turn's end",
                hint="split the conversation into one example per answer",
            )
        said = _count_said(answer, end)
        ids.append(answer)
        weights += [
            np.zeros(len(prompt), np.float32),
            np.full(said, piece.weight, np.float32),
            np.zeros(len(answer) - said, np.float32),
        ]
    return np.concatenate(ids), np.concatenate(weights)


def _count_said(answer: Ids, end: int | None) -> int:
    """How many ids of an assistant turn are its own: up to and with its end token; a newline after that is not."""
    places = np.flatnonzero(answer == (-1 if end is None else end))
    return int(places[-1]) + 1 if len(places) else len(answer)
