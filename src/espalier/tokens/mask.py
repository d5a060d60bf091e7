"""Messages -> ids with a loss weight for each: only what the assistant is to learn to say carries weight.

The ids before an answer are exactly `encode_prompt` of what stands before it: what serving will feed. That is so by
construction for the first answer and checked for each later one, so training and serving can never cut a conversation
differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.tokens.tokenizer import ChatTokenizer


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


def supervise(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> tuple[list[int], list[float]]:
    """Ids and weights of a conversation: assistant turns and their ends 1 (or the message's own weight), all else 0."""
    ids: list[int] = []
    weights: list[float] = []
    done = ""
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = tokenizer.render(messages[:index], add_generation_prompt=True)
        after = tokenizer.render(messages[: index + 1])
        if not (before.startswith(done) and after.startswith(before)):
            raise InvalidInput(
                f"turn {index + 1}: the chat template rewrites earlier turns, so their loss cannot be placed",
                hint="split the conversation into one example per answer",
            )
        prompt = tokenizer.encode(before[len(done) :])
        ids += prompt
        weights += [0.0] * len(prompt)
        if done and ids != tokenizer.encode(before):
            raise InvalidInput(
                f"turn {index + 1}: the tokenizer joins text across a turn's end",
                hint="split the conversation into one example per answer",
            )
        answer, tail = _answer(tokenizer, after[len(before) :])
        weight = 1.0 if message.weight is None else message.weight
        ids += answer + tail
        weights += [weight] * len(answer) + [0.0] * len(tail)
        done = after
    return ids, weights


def supervise_text(tokenizer: ChatTokenizer, text: str) -> tuple[list[int], list[float]]:
    """Raw text: every token but the first is learnt, and an end token when the model has one."""
    ids = tokenizer.encode(text)
    if ids and tokenizer.eos_id is not None:
        ids = [*ids, tokenizer.eos_id]
    return ids, [0.0, *[1.0] * (len(ids) - 1)] if ids else []


def _answer(tokenizer: ChatTokenizer, text: str) -> tuple[list[int], list[int]]:
    """An assistant turn's ids up to and with its end token, and what the template puts after that (a newline)."""
    ids = tokenizer.encode(text)
    end = tokenizer.eos_id
    if end is None or end not in ids:
        return ids, []
    cut = len(ids) - ids[::-1].index(end)
    return ids[:cut], ids[cut:]
