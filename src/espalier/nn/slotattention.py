"""Who sees what in a step over slots, and the attention itself, in plain torch: the reference of every faster path.

Shapes: t rows of the step, n answers under way, h heads, k key heads, g = h / k, d head width, l cached positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk of one prompt: rows `begin:end` of the step are positions `first:first + end - begin` of `slot`."""

    begin: int
    end: int
    slot: int
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """How a layer's attention departs from the plain causal one; the default does not.

    `window`: how many positions a row sees, its own included (Mistral). `softcap`: scores become
    softcap tanh(score / softcap) (Gemma 2, https://arxiv.org/abs/2408.00118). `sinks` (h): per head, a score that takes
    its share of the weights and gives nothing (gpt-oss; https://arxiv.org/abs/2309.17453).
    """

    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None


PLAIN = Kind()


@dataclass(slots=True)
class Step:
    """Where each row of a step stands. Rows 0..n-1 continue answers; `slots[i]` and `positions[i]` are row i's place.

    `shared` cached positions at the start are the same tokens for all of them, so they are read once for all.
    """

    slots: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Answers in neighbouring slots: their cache is one view, no gather."""

    begin: int
    end: int
    block: slice  # of slots
    slots: Tensor  # (n)
    positions: Tensor  # (n)
    shared: int
    start: int  # the first position that is read beside the shared ones
    longest: int
    unseen: Tensor | None  # (n, 1, 1, longest - start), true at positions that a row must not see


@dataclass(frozen=True, slots=True)
class Reading:
    """A chunk, and what its rows may see of the positions from `start` on: all up to their own, or `mask` added."""

    span: Span
    start: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Layout:
    """A step as the layers with one and the same window read it."""

    runs: list[Run]
    readings: list[Reading]


def runs_of(step: Step, device: torch.device, window: int | None) -> list[Run]:
    """The step's answers in runs of neighbouring slots, as layers with this window read them."""
    runs, begin = [], 0
    for i in range(1, len(step.slots) + 1):
        if i < len(step.slots) and step.slots[i] == step.slots[i - 1] + 1:
            continue
        first, longest = min(step.positions[begin:i]), max(step.positions[begin:i]) + 1
        positions = torch.tensor(step.positions[begin:i], device=device)
        passed = window is not None and window < longest  # somebody no longer sees the beginning
        shared = 0 if passed else step.shared
        start = max(0, first + 1 - window) if passed and window is not None else shared
        unseen = None
        if first + 1 < longest or passed:
            there = torch.arange(start, longest, device=device)
            unseen = there > positions[:, None]
            if passed and window is not None:
                unseen |= there <= positions[:, None] - window
            unseen = unseen[:, None, None]
        block = slice(step.slots[begin], step.slots[begin] + i - begin)
        slots = torch.arange(block.start, block.stop, device=device)
        runs.append(Run(begin, i, block, slots, positions, shared, start, longest, unseen))
        begin = i
    return runs


def attend_rows(q: Tensor, keys: Tensor, values: Tensor, run: Run, scale: float, kind: Kind) -> Tensor:
    """One query per slot against all it may see. q (n, h, d), keys and values (n, k, l, d)."""
    n, h, d = q.shape
    heads, shared = keys.shape[1], run.shared
    q = (q * scale).view(n, heads, h // heads, d)
    scores = torch.matmul(q, keys[:, :, run.start : run.longest].transpose(2, 3))  # (n, k, g, longest - start)
    if run.unseen is not None:
        scores.masked_fill_(run.unseen, float("-inf"))
    if shared == 0:
        weights = _weigh(scores, kind).to(q.dtype)
        return torch.matmul(weights, values[:, :, run.start : run.longest]).view(n, h, d)
    # The common beginning is read once for all n answers: a product of matrices instead of n products with a vector.
    common_q = q.permute(1, 0, 2, 3).reshape(heads, -1, d)  # (k, n g, d)
    common = torch.matmul(common_q, keys[0, :, :shared].transpose(1, 2)).view(heads, n, h // heads, shared)
    weights = _weigh(torch.cat([common.transpose(0, 1), scores], -1), kind).to(q.dtype)
    own = torch.matmul(weights[..., shared:], values[:, :, shared : run.longest])
    common_weights = weights[..., :shared].transpose(0, 1).reshape(heads, -1, shared)
    common_out = torch.matmul(common_weights, values[0, :, :shared]).view(heads, n, h // heads, d)
    return (own + common_out.transpose(0, 1)).reshape(n, h, d)


def attend_chunk(q: Tensor, keys: Tensor, values: Tensor, reading: Reading, scale: float, kind: Kind) -> Tensor:
    """The rows of a chunk against what of their slot they may see. q (t, h, d), keys and values (k, l, d)."""
    t, h, d = q.shape
    heads = len(keys)
    if kind.softcap is None and kind.sinks is None:
        return functional.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            keys[None],
            values[None],
            attn_mask=reading.mask,
            is_causal=reading.mask is None,
            scale=scale,
            enable_gqa=h != heads,
        )[0].transpose(0, 1)
    grouped = (q * scale).view(t, heads, h // heads, d).permute(1, 2, 0, 3)  # (k, g, t, d)
    scores = torch.matmul(grouped, keys[:, None].transpose(2, 3))  # (k, g, t, l)
    mask = reading.mask
    if mask is None:
        mask = torch.full(scores.shape[-2:], float("-inf"), dtype=q.dtype, device=q.device).triu_(1)
    weights = _weigh(scores.permute(2, 0, 1, 3), kind, mask[:, None, None]).to(q.dtype)  # (t, k, g, l)
    return torch.matmul(weights.permute(1, 2, 0, 3), values[:, None]).permute(2, 0, 1, 3).reshape(t, h, d)


def _weigh(scores: Tensor, kind: Kind, mask: Tensor | None = None) -> Tensor:
    """Softmax of scores (n, k, g, l) in float32, bent and shared with sinks as `kind` says; -inf stays unseen."""
    if kind.softcap is not None:
        hidden = scores.isneginf()
        scores = (torch.tanh(scores / kind.softcap) * kind.softcap).masked_fill_(hidden, float("-inf"))
    if mask is not None:
        scores = scores + mask
    if kind.sinks is None:
        return scores.softmax(-1, dtype=torch.float32)
    sinks = kind.sinks.to(scores.dtype).view(scores.shape[1], scores.shape[2], 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, sinks], -1).softmax(-1, dtype=torch.float32)[..., :-1]


def reading_of(span: Span, dtype: torch.dtype, device: torch.device, window: int | None) -> Reading:
    """No mask when the chunk starts its prompt and no row of it looks beyond its window (plain causal)."""
    length, last = span.end - span.begin, span.first + span.end - span.begin
    passed = window is not None and window < last
    if span.first == 0 and not passed:
        return Reading(span, 0, None)
    start = max(0, span.first + 1 - window) if passed and window is not None else 0
    seen = torch.ones(length, last - start, dtype=torch.bool, device=device).tril_(span.first - start)
    if passed and window is not None:
        seen.triu_(span.first - start - window + 1)
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))
    return Reading(span, start, mask)
