"""Choose the next token from logits: greedy or drawn, under biases, penalties, filters and grammars.

What is done to a row of logits, in the order of vLLM's sampler (https://docs.vllm.ai/en/latest/, `v1/sample`):

    grammar              tokens that would leave the form are never chosen
    logit bias           added                                         (OpenAI's `logit_bias`)
    repetition penalty   Keskar et al. 2019, https://arxiv.org/abs/1909.05858; over prompt and answer
    frequency, presence  minus count x frequency, minus presence      (OpenAI; over the answer alone)
    temperature          0, or as good as 0: the first of the largest, and nothing below applies
    min-p                Nguyen et al. 2024, https://arxiv.org/abs/2407.01082
    top-k                Fan et al. 2018, https://arxiv.org/abs/1805.04833
    top-p                Holtzman et al. 2019, https://arxiv.org/abs/1904.09751; of what top-k and min-p have left

A request's draws depend on its own seed and how many tokens it has drawn, never on who shares its batch. Rows that ask
for none of it cost one argmax together. Shapes: n requests, m of them that draw, v vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy
import torch
from torch import Tensor

from espalier.core.types import SamplingSpec

# Below it logits over temperature overflow float32, and what is drawn is the largest anyway (vLLM's bound, too).
_COLDEST = 1e-5
# Filters mostly decide among far fewer tokens than these; sorting a whole large vocabulary would cost more than a step.
_HEAD = 1024


class Form(Protocol):
    """What an answer must look like."""

    def allowed(self) -> numpy.typing.NDArray[numpy.bool_]:
        """(at most v): whether each id may come next; ids beyond its end may not."""
        ...


@dataclass(slots=True)
class Sampler:
    """One answer's way of choosing, and the random stream it draws from. Without a seed each draws differently.

    prompt: its ids, for the repetition penalty. number: which of the `n` answers to one prompt it is; the first draws
    as an only one would.
    """

    spec: SamplingSpec
    prompt: Sequence[int] = ()
    number: int = 0
    form: Form | None = None
    stream: random.Random = field(init=False)
    _prompt: list[int] = field(init=False, default_factory=list)  # each id once
    _counts: dict[int, int] = field(init=False, default_factory=dict)  # of the answer's tokens

    def __post_init__(self) -> None:
        seed = self.spec.seed
        self.stream = random.Random(seed if seed is None or self.number == 0 else f"{seed}/{self.number}")
        if self.spec.repetition_penalty != 1:
            self._prompt = sorted(set(self.prompt))

    @property
    def draws(self) -> bool:
        return self.spec.temperature >= _COLDEST

    @property
    def adjusts(self) -> bool:
        """Whether it chooses by other logits than the model's own."""
        spec = self.spec
        return bool(
            self.form or spec.logit_bias or spec.presence_penalty or spec.frequency_penalty
            or spec.repetition_penalty != 1
        )  # fmt: skip

    def note(self, token: int) -> None:
        """The answer has grown by `token`."""
        spec = self.spec
        if spec.presence_penalty or spec.frequency_penalty or spec.repetition_penalty != 1:
            self._counts[token] = self._counts.get(token, 0) + 1

    def adjust(self, row: Tensor) -> None:
        """Grammar, bias and penalties on a row (v) of logits, in place."""
        spec, device = self.spec, row.device
        if self.form is not None:
            allowed = torch.from_numpy(self.form.allowed()).to(device)
            row[: len(allowed)].masked_fill_(~allowed[: len(row)], float("-inf"))
            row[len(allowed) :] = float("-inf")
        if spec.logit_bias:
            ids, biases = zip(*spec.logit_bias, strict=True)
            row[torch.tensor(ids, device=device)] += torch.tensor(biases, dtype=row.dtype, device=device)
        if spec.repetition_penalty != 1:
            seen = torch.tensor(list({*self._prompt, *self._counts}), dtype=torch.int64, device=device)
            said = row[seen]
            row[seen] = torch.where(said > 0, said / spec.repetition_penalty, said * spec.repetition_penalty)
        if self._counts and (spec.presence_penalty or spec.frequency_penalty):
            counts = torch.tensor(list(self._counts.values()), dtype=row.dtype, device=device)
            amounts = counts * spec.frequency_penalty + spec.presence_penalty
            row[torch.tensor(list(self._counts), device=device)] -= amounts


def choose_tokens(
    logits: Tensor,
    samplers: Sequence[Sampler | None],
    best: Sequence[int] | None = None,
    faults: dict[int, Exception] | None = None,
) -> list[int]:
    """The next token of each request from `logits` (n, v). Temperature 0, or no sampler: the first of the largest.

    `best`: those, where they are known. `faults` gets what a request's own grammar, bias or penalties raised, by its
    row, and the token of that row means nothing then; without it, it is raised.
    """
    chosen: list[int] = logits.argmax(-1).tolist() if best is None else list(best)
    rows = {i: sampler for i, sampler in enumerate(samplers) if sampler and (sampler.draws or sampler.adjusts)}
    if not rows:
        return chosen
    own = logits[list(rows)].float()  # a copy
    drawing = []
    for place, (i, sampler) in enumerate(rows.items()):
        if sampler.adjusts:
            try:
                sampler.adjust(own[place])
            except Exception as fault:  # one request's: nothing has been drawn for its neighbours yet
                if faults is None:
                    raise
                faults[i] = fault
                continue
            chosen[i] = int(own[place].argmax())
        if sampler.draws:
            drawing.append((place, i, sampler))
    if drawing:
        drawn = _draw(own[[place for place, _, _ in drawing]], [sampler for _, _, sampler in drawing])
        for (_, i, _), token in zip(drawing, drawn, strict=True):
            chosen[i] = token
    return chosen


def tell_logprobs(
    logits: Tensor, tokens: Sequence[int], wanted: Sequence[int | None]
) -> list[tuple[float, list[tuple[int, float]]] | None]:
    """Of each row of `logits` (n, v) that wants k >= 0: log-probability of its token, and the k likeliest with theirs.

    Of the model's own distribution, before bias, penalties and filters, as OpenAI and vLLM tell them.
    """
    rows = [i for i, k in enumerate(wanted) if k is not None]
    told: list[tuple[float, list[tuple[int, float]]] | None] = [None] * len(wanted)
    if not rows:
        return told
    likely = logits[rows].float().log_softmax(-1)
    chosen = likely.gather(1, torch.tensor([tokens[i] for i in rows], device=likely.device)[:, None])[:, 0].tolist()
    top = likely.topk(min(max(wanted[i] or 0 for i in rows), likely.shape[1]))
    for place, i in enumerate(rows):
        k = wanted[i] or 0
        ids, values = top.indices[place, :k].tolist(), top.values[place, :k].tolist()
        told[i] = (chosen[place], list(zip(ids, values, strict=True)))
    return told


@dataclass(frozen=True, slots=True)
class Kept:
    """What may be drawn in some `rows`: `weights` (m, r) to draw by, zero for what may not be, and the ids (m, r) they
    are of, None where r is v and they stand in order."""

    rows: list[int]
    weights: Tensor
    ids: Tensor | None


def filter_tokens(logits: Tensor, specs: Sequence[SamplingSpec]) -> list[Kept]:
    """Temperature, min-p, top-k and top-p: what may be drawn of each row of `logits` (m, v) float32.

    In three groups: rows without filters, rows that a head of the likeliest decides, and the rest, which are sorted
    whole. Which group a row is in follows from the row alone, so equal weights rank alike beside any others.
    """
    temperature = torch.tensor([spec.temperature for spec in specs], dtype=torch.float32, device=logits.device)[:, None]
    weights = (logits / temperature).softmax(-1)
    plain = [i for i, spec in enumerate(specs) if spec.top_p == 1 and spec.top_k == 0 and spec.min_p == 0]
    rest = sorted(set(range(len(specs))) - set(plain))
    kept = [Kept(plain, weights[plain], None)] if plain else []
    if not rest:
        return kept
    ranked, ids = weights[rest].topk(min(_HEAD, weights.shape[1]))
    whole = ranked.shape[1] == weights.shape[1]
    decided = [place for place, i in enumerate(rest) if whole or _is_decided(ranked[place], specs[i])]
    if decided:
        rows = [rest[place] for place in decided]
        kept.append(Kept(rows, _cut(ranked[decided], [specs[i] for i in rows]), ids[decided]))
    rows = sorted(set(rest) - {rest[place] for place in decided})
    if rows:
        ranked, ids = weights[rows].sort(descending=True, stable=True)
        kept.append(Kept(rows, _cut(ranked, [specs[i] for i in rows]), ids))
    return kept


def _cut(ranked: Tensor, specs: Sequence[SamplingSpec]) -> Tensor:
    """Probabilities (m, r), the largest first, with those set to zero that the filters leave out."""
    device = ranked.device
    places = torch.arange(ranked.shape[1], device=device)
    top_k = torch.tensor([spec.top_k or len(places) for spec in specs], device=device)[:, None]
    # Above one where nothing is asked for: rounding of the sum must not cut what is least likely.
    top_p = torch.tensor([spec.top_p if spec.top_p < 1 else 2.0 for spec in specs], dtype=torch.float32, device=device)[
        :, None
    ]
    min_p = torch.tensor([spec.min_p for spec in specs], dtype=torch.float32, device=device)[:, None]
    ranked = ranked * ((places < top_k) & (ranked >= min_p * ranked[:, :1]))
    before = ranked.double().cumsum(-1) - ranked  # mass ranked above each token
    # The nucleus is the shortest head whose mass reaches top_p; the likeliest token always belongs to it.
    within = before < top_p * _mass_left(ranked, specs)
    return ranked * (within | (places == 0))


def _is_decided(ranked: Tensor, spec: SamplingSpec) -> bool:
    """Whether the filters leave nothing beyond this head (r) of a row's probabilities, or nothing that counts."""
    if 0 < spec.top_k <= len(ranked) or float(ranked[-1]) < spec.min_p * float(ranked[0]):
        return True
    return spec.top_k == 0 and spec.min_p == 0 and float(ranked.double().sum()) >= spec.top_p + 1e-6  # rounding


def _mass_left(ranked: Tensor, specs: Sequence[SamplingSpec]) -> Tensor:
    """(m, 1): mass of what top-k and min-p have left; all of it where neither asks for anything."""
    whole = torch.tensor([spec.top_k == 0 and spec.min_p == 0 for spec in specs], device=ranked.device)
    return torch.where(whole, 1.0, ranked.double().sum(-1))[:, None]


def _draw(logits: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One token of each row of `logits` (m, v)."""
    tokens = [0] * len(samplers)
    for kept in filter_tokens(logits, [sampler.spec for sampler in samplers]):
        luck = torch.tensor([samplers[i].stream.random() for i in kept.rows], dtype=torch.float64)
        mass = kept.weights.double().cumsum(-1)
        places = torch.searchsorted(mass, luck.to(mass.device)[:, None] * mass[:, -1:], right=True)[:, 0]
        last = mass.shape[1] - 1 - kept.weights.flip(-1).ne(0).to(torch.uint8).argmax(-1)
        places = torch.minimum(places, last)[:, None]
        found = places if kept.ids is None else kept.ids.gather(1, places)
        for i, token in zip(kept.rows, found[:, 0].tolist(), strict=True):
            tokens[i] = token
    return tokens
