"""Choose the next token from logits: greedy, or temperature and nucleus sampling with a seed of each request's own.

Nucleus (top-p) sampling: Holtzman et al. 2019, https://arxiv.org/abs/1904.09751. A request's draws depend on its own
seed and how many tokens it has drawn, never on who shares its batch.

Shapes: n requests, v vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from espalier.core.types import SamplingSpec


@dataclass(slots=True)
class Sampler:
    """One request's way of choosing, and the random stream it draws from. Without a seed each draws differently."""

    spec: SamplingSpec
    stream: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.stream = random.Random(self.spec.seed)


def choose_tokens(logits: Tensor, samplers: Sequence[Sampler | None]) -> list[int]:
    """The next token of each request from `logits` (n, v). Temperature 0, or no sampler: the first of the largest."""
    chosen: list[int] = logits.argmax(-1).tolist()
    for i, sampler in enumerate(samplers):
        if sampler is not None and sampler.spec.temperature > 0:
            chosen[i] = _draw(logits[i], sampler)
    return chosen


def _draw(logits: Tensor, sampler: Sampler) -> int:
    probabilities = (logits.float() / sampler.spec.temperature).softmax(-1)
    ranked, ids = probabilities.sort(descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked  # mass ranked above each token
    # The nucleus is the shortest head whose mass reaches top_p; the most probable token always belongs to it.
    ranked[1:][before[1:] >= sampler.spec.top_p] = 0.0
    mass = ranked.double().cumsum(-1)
    place = torch.searchsorted(mass, sampler.stream.random() * mass[-1], right=True)
    return int(ids[min(int(place), int((ranked > 0).sum()) - 1)])
