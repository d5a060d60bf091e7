"""One prompt and several ways it goes on -> ids: the prompt once, each continuation with the loss weights of its own.

Every continuation is tokenized as the whole conversation it ends, by `mask.supervise`. What all of them begin with,
token for token, is the prompt; so a model that computes it once computes exactly what it would compute for each
conversation alone, whatever a template puts where the answer opens. Knows no model and no objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.core.types import Message
from espalier.tokens.mask import supervise
from espalier.tokens.tokenizer import ChatTokenizer


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation's ids from the end of the shared prompt on; `weights[i]` is the loss weight of `ids[i]`."""

    ids: list[int]
    weights: list[float]
    cut_tokens: int = 0  # lost because the context ended

    @property
    def supervised(self) -> int:
        """How many tokens carry loss."""
        return sum(weight > 0 for weight in self.weights)


@dataclass(frozen=True, slots=True)
class Branches:
    """A prompt's ids and its continuations."""

    id: str
    prompt: list[int]
    answers: list[Branch]


def branch(
    tokenizer: ChatTokenizer, id: str, prompt: Sequence[Message], continuations: Sequence[Sequence[Message]]
) -> Branches:
    """Ids of all conversations `prompt` + continuation; the assistant's turns of the continuation carry loss.

    A continuation ends with its last such token; one without any comes back empty. Raises InvalidInput when the
    template refuses a conversation, or rewrites an earlier turn of a continuation.
    """
    whole = [_supervised(tokenizer, [*prompt, *turns], len(prompt)) for turns in continuations]
    shared = _shared([answer for answer in whole if answer.ids])
    return Branches(
        id,
        next((answer.ids[:shared] for answer in whole if answer.ids), []),
        [Branch(answer.ids[shared:], answer.weights[shared:]) for answer in whole],
    )


def cut(branches: Branches, context_tokens: int) -> Branches:
    """Each conversation's end cut off beyond `context_tokens`; a prompt that fills them leaves its answers empty."""
    room = max(0, context_tokens - len(branches.prompt))
    if all(len(answer.ids) <= room for answer in branches.answers):
        return branches
    return Branches(branches.id, branches.prompt, [_trimmed(answer, room) for answer in branches.answers])


def _supervised(tokenizer: ChatTokenizer, messages: list[Message], first: int) -> Branch:
    ids, weights = supervise(tokenizer, messages, first=first)
    return _trimmed(Branch(ids, weights), len(ids))


def _trimmed(answer: Branch, room: int) -> Branch:
    """At most `room` tokens, the last of them supervised."""
    supervised = [place for place, weight in enumerate(answer.weights) if weight > 0]
    whole = supervised[-1] + 1 if supervised else 0
    end = next((place + 1 for place in reversed(supervised) if place < room), 0)
    return Branch(answer.ids[:end], answer.weights[:end], answer.cut_tokens + max(0, whole - room))


def _shared(answers: Sequence[Branch]) -> int:
    """How many tokens all begin with, short of the first that carries loss in any."""
    if not answers:
        return 0
    first = answers[0].ids
    limit = min(next(i for i, weight in enumerate(answer.weights) if weight > 0) for answer in answers)
    return next((i for i in range(limit) if any(answer.ids[i] != first[i] for answer in answers)), limit)
