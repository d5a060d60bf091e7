"""Pairs of answers -> strips whose two last tokens are rewarded. Knows no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np

from espalier.core.errors import InvalidInput
from espalier.core.types import Example
from espalier.tokens.ends import encode_conversation, lay_ends
from espalier.tokens.pack import Strip
from espalier.tokens.tokenizer import ChatTokenizer
from espalier.train.heads.objectives import MARGIN
from espalier.train.laying import Laid, Laying, lay_each


def lay_rewards(tokenizer: ChatTokenizer, *, margin: float, margin_tag: str, context_tokens: int) -> Laying:
    """A strip for each pair: the better answer's row first, its margin in the extras."""

    def lay(example: Example) -> Laid:
        if not (example.chosen and example.rejected):
            return Laid(dropped="no pair of answers")
        chosen = encode_conversation(tokenizer, [*example.messages, *example.chosen])
        rejected = encode_conversation(tokenizer, [*example.messages, *example.rejected])
        if chosen == rejected:
            return Laid(dropped="the two answers are the same")
        excess = max(len(chosen), len(rejected)) - context_tokens
        if excess > 0:
            return Laid(dropped="an answer ends beyond the context", cut_tokens=excess)
        return Laid((lay_pair_ends(example.id, chosen, rejected, _margin_of(example, margin, margin_tag)),))

    def show(strip: Strip) -> str:
        texts = [tokenizer.decode(strip.ids[start:end].tolist(), skip_special=False) for start, end in _cut(strip)]
        return f"{texts[0]}⟦{texts[1]}⟧ rather than ⟦{texts[2]}⟧"

    tag = f"reward/1/{context_tokens}/{margin}/{margin_tag}"
    return lay_each(tag, lay, show, ("chosen", "rejected"), answer=lambda strip: "a reward")


def lay_pair_ends(id: str, chosen: Sequence[int], rejected: Sequence[int], margin: float) -> Strip:
    """Two whole conversations as ids: what they begin with alike is computed once."""
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    shared = min(alike, len(chosen) - 1, len(rejected) - 1)  # each keeps a token of its own, to be judged at
    strip = lay_ends(id, chosen[:shared], [chosen[shared:], rejected[shared:]], [0, 0], [1.0, 1.0])
    return replace(strip, extras={MARGIN: np.array([margin], np.float32)})


def _cut(strip: Strip) -> list[tuple[int, int]]:
    """Where what both answers begin with stands, then the rest of each."""
    first, second = (int(row) + 1 for row in strip.rows)
    start = int(strip.segments[-1, 3])
    return [(0, start), (start, first), (first, second)]


def _margin_of(example: Example, margin: float, tag: str) -> float:
    if not tag:
        return margin
    try:
        found = float(example.tags.get(tag, ""))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InvalidInput(f"the tag {tag} holds no number", hint="write the margin as 0.5")
    return found
