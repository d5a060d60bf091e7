"""Messages -> ids with a loss weight for each: only what the assistant is to learn to say carries weight.

The ids before an answer are exactly `encode_prompt` of what stands before it: what serving will feed. Where the text of
a later answer's prompt goes on from the answer before, both share a document; where a template writes earlier turns
anew (it drops their thoughts, or moves the system's words to the last question), or the tokenizer joins text across a
turn's end, the later answer gets a document of its own. So training and serving can never cut a conversation
differently, and each answer is learnt once.

A template that writes the date is rendered on one fixed day, so that the same data give the same ids tomorrow.

Legend: n tokens of a document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
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

TRAINING_DAY = date(2024, 7, 26)  # what Llama 3's template falls back to when nobody tells it the date


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


class Answer(NamedTuple):
    """One answer of a conversation, as text."""

    before: str  # all that stands before it, its turn opened
    said: str  # its words and the end of its turn
    weight: float
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
    """Ids and weights of a conversation, up to the end of its last answer: answers 1 (or their own weight), else 0.

    Turns before message `first`, and answers of weight 0, are read and not learnt. Raises InvalidInput when the
    answers do not fit into one document.
    """
    documents = _lay_out(tokenizer, cut_answers(tokenizer, messages, first=first), _encode_with(tokenizer))
    if len(documents) > 1:
        raise InvalidInput(
            "the chat template rewrites earlier turns, so one document cannot hold the loss of all answers",
            hint="split the conversation into one example per answer",
        )
    ids, weights = documents[0] if documents else (np.zeros(0, np.int32), np.zeros(0, np.float32))
    return ids.tolist(), weights.tolist()


def supervise_all(
    tokenizer: ChatTokenizer, conversations: Sequence[Sequence[Message]], encode_all: EncodeAll
) -> list[list[Supervised] | InvalidInput]:
    """The documents of many conversations, usually one of each, encoded together.

    What is wrong with a conversation stands in its documents' place.
    """
    cut: list[list[Answer] | InvalidInput] = []
    for messages in conversations:
        try:
            cut.append(cut_answers(tokenizer, messages))
        except InvalidInput as error:
            cut.append(error)
    encoded = iter(encode_all([text for answers in cut if isinstance(answers, list) for text in _texts_of(answers)]))
    return [found if isinstance(found, InvalidInput) else _assemble(found, encoded, encode_all) for found in cut]


def supervise_text(tokenizer: ChatTokenizer, text: str) -> tuple[list[int], list[float]]:
    """Raw text: every token but the first is learnt, and an end token when the model has one.

    What the tokenizer puts before any text (a bos token) is read first.
    """
    ids = tokenizer.encode(text)
    if ids:
        ids = [*tokenizer.opening, *ids, *([] if tokenizer.eos_id is None else [tokenizer.eos_id])]
    return ids, [0.0, *[1.0] * (len(ids) - 1)] if ids else []


def cut_answers(tokenizer: ChatTokenizer, messages: Sequence[Message], *, first: int = 0) -> list[Answer]:
    """The answers to learn from message `first` on, each with all that the model reads before it.

    Raises InvalidInput when the template refuses the messages, or opens an answer otherwise than it writes one.
    """
    answers: list[Answer] = []
    end = tokenizer.turn_end or tokenizer.special_tokens.get("eos_token", "")
    for index, message in enumerate(messages):
        weight = 1.0 if message.weight is None else message.weight
        if message.role != "assistant" or index < first or weight == 0:
            continue
        before = tokenizer.render(messages[:index], add_generation_prompt=True, on=TRAINING_DAY)
        after = tokenizer.render(messages[: index + 1], on=TRAINING_DAY)
        said = _said(before, after, messages[index - 1].content.strip() if index else "")
        if not said:
            raise InvalidInput(
                f"turn {index + 1}: the chat template opens an answer otherwise than it writes one, "
                "so what is learnt would not be what is asked for",
                hint="take a template whose generation prompt is how its assistant's turns begin",
            )
        words, mark, _ = said.rpartition(end) if end else ("", "", "")
        answers.append(Answer(before, words + mark or said, weight, index))
    return answers


def _said(before: str, after: str, asked: str) -> str:
    """What `after` has behind the text of `before`, or at least behind all that follows the words asked last.

    Mistral's template leaves the system's words out of a conversation that ends with an answer. Empty where neither is
    in `after`.
    """
    if after.startswith(before):
        return after[len(before) :]
    found = before.rfind(asked) if asked else -1
    if found < 0:
        return ""
    _, behind, said = after.rpartition(before[found:])
    return said if behind else ""


def _encode_with(tokenizer: ChatTokenizer) -> EncodeAll:
    return lambda texts: [np.asarray(tokenizer.encode(text), np.int32) for text in texts]


def _lay_out(tokenizer: ChatTokenizer, answers: Sequence[Answer], encode_all: EncodeAll) -> list[Supervised]:
    return _assemble(answers, iter(encode_all(_texts_of(answers))), encode_all)


def _texts_of(answers: Sequence[Answer]) -> list[str]:
    """What has to be encoded, in the order `_assemble` takes it: up to each answer, and up to its end."""
    return [text for answer in answers for text in (answer.before, answer.before + answer.said)]


def _assemble(answers: Sequence[Answer], encoded: Iterator[Ids], encode_all: EncodeAll) -> list[Supervised]:
    """The fewest documents that hold every answer behind exactly the ids of its prompt."""
    documents: list[Supervised] = []
    for answer in answers:
        before, through = next(encoded), next(encoded)
        # Encoded with its prompt, an answer is cut as transformers cuts the conversation. Where that would join the
        # prompt's last letters with the answer's first, serving's prompt decides, and the answer stands alone.
        said = through[len(before) :] if _begins(through, before) else encode_all([answer.said])[0]
        ids, weights = documents[-1] if documents else (before[:0], np.zeros(0, np.float32))
        if documents and _begins(before, ids):
            documents.pop()
        else:
            weights = np.zeros(0, np.float32)
        read = np.zeros(len(before) - len(weights), np.float32)
        learnt = np.full(len(said), answer.weight, np.float32)
        documents.append((np.concatenate([before, said]), np.concatenate([weights, read, learnt])))
    return documents


def _begins(ids: Ids, with_ids: Ids) -> bool:
    return len(ids) >= len(with_ids) and bool(np.array_equal(ids[: len(with_ids)], with_ids))
