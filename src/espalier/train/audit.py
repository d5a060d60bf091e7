"""The mask audit: before the first step, what will carry loss, what was cut, what was dropped, and a sample to look at.

Most failed fine-tunes fail here, silently: a template that hides the answer, a context too short for it. So a dataset
that teaches nothing is refused. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Example
from espalier.tokens.mask import Tokenized, tokenize
from espalier.tokens.tokenizer import ChatTokenizer

MARK_OPEN, MARK_CLOSE = "⟦", "⟧"  # around what carries loss, in the sample


@dataclass(frozen=True, slots=True)
class MaskAudit:
    """What training will see. `sample` is one example as the model reads it, what carries loss between ⟦ and ⟧."""

    examples: int
    dropped: int  # without a token to learn: all cut off, or nothing to say
    truncated: int
    tokens: int
    supervised_tokens: int
    longest_tokens: int
    sample: str

    @property
    def supervised_share(self) -> float:
        """Share of the kept tokens that carry loss."""
        return self.supervised_tokens / self.tokens if self.tokens else 0.0

    def to_json(self) -> dict[str, Any]:
        """For the event stream."""
        return {**asdict(self), "supervised_share": self.supervised_share}


def audit(
    tokenizer: ChatTokenizer, examples: Iterable[Example], *, context_tokens: int
) -> tuple[list[Tokenized], MaskAudit]:
    """Tokenize all examples; returns those with something to learn, and what happened to the rest.

    Raises InvalidInput when no token of the whole dataset would carry loss, saying why.
    """
    kept: list[Tokenized] = []
    seen = truncated = answers = 0
    for example in examples:
        document = tokenize(tokenizer, example, context_tokens=context_tokens)
        seen += 1
        truncated += document.dropped_tokens > 0
        answers += bool(example.text) or any(turn.role == "assistant" for turn in example.messages)
        if document.supervised:
            kept.append(document)
    if not kept:
        raise _nothing_to_learn(seen, truncated, answers, context_tokens)
    return kept, MaskAudit(
        examples=len(kept),
        dropped=seen - len(kept),
        truncated=truncated,
        tokens=sum(len(document.ids) for document in kept),
        supervised_tokens=sum(document.supervised for document in kept),
        longest_tokens=max(len(document.ids) for document in kept),
        sample=marked(tokenizer, kept[0]),
    )


def marked(tokenizer: ChatTokenizer, document: Tokenized) -> str:
    """The document's text with its loss-bearing stretches between ⟦ and ⟧."""
    parts: list[str] = []
    start = 0
    for end in range(1, len(document.ids) + 1):
        if end < len(document.ids) and (document.weights[end] > 0) == (document.weights[start] > 0):
            continue
        text = tokenizer.decode(document.ids[start:end], skip_special=False)
        parts.append(f"{MARK_OPEN}{text}{MARK_CLOSE}" if document.weights[start] > 0 else text)
        start = end
    return "".join(parts)


def _nothing_to_learn(seen: int, truncated: int, answers: int, context_tokens: int) -> InvalidInput:
    if not seen:
        return InvalidInput("the dataset has no training example", hint="look at its split: `espalier data show`")
    if not answers:
        return InvalidInput(
            f"none of {seen} examples has an assistant's turn, so there is nothing to learn",
            hint="each example needs a message with role `assistant`, or a `text`",
        )
    if truncated:
        return InvalidInput(
            f"all {seen} examples are cut off before their answer at {context_tokens} tokens",
            hint="raise `context_tokens`, or shorten the prompts",
        )
    return InvalidInput(
        f"none of {seen} examples has a token that carries loss: every assistant turn is empty or has weight 0",
        hint="give the answers a weight above 0",
    )
