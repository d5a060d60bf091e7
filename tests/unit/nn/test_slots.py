"""Attention over slots against plain attention over each sequence alone."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch.nn import functional

from espalier.core.errors import UnsupportedModel
from espalier.nn.base import LoadedBase
from espalier.nn.slots import Kind, SlotCache, Span, Step, install_slots

HEADS, KEY_HEADS, WIDTH = 4, 2, 12  # the tiny base's
SCALE = WIDTH**-0.5


def alone(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The last query of a sequence, by torch. q (t, h, d), k and v (t, k, d) -> (h, d)."""
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in (q, k, v))
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=SCALE, enable_gqa=True)
    return out[0, :, -1]


def draw(t: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(t, HEADS, WIDTH, generator=generator),
        torch.randn(t, KEY_HEADS, WIDTH, generator=generator),
        torch.randn(t, KEY_HEADS, WIDTH, generator=generator),
    )


@pytest.mark.parametrize("shared", [0, 70])
@pytest.mark.parametrize("slots", [[0, 1, 2, 3], [0, 2, 3, 5]], ids=["dense", "holes"])
@torch.inference_mode()
def test_rows_in_slots_attend_as_each_sequence_alone(base: LoadedBase, shared: int, slots: list[int]) -> None:
    cache = SlotCache(base.model, slots=6, context_tokens=128)
    lengths = [90, 71, 101, 77]
    sequences = [draw(length, seed) for seed, length in enumerate(lengths)]
    for q, k, v in sequences[1:]:
        for own, first in zip((q, k, v), sequences[0], strict=True):
            own[:shared] = first[:shared]
    for slot, (q, k, v) in zip(slots, sequences, strict=True):
        done = 0
        for size in (40, len(q) - 41):  # all but the last token, as two chunks
            cache.begin(Step(spans=[Span(0, size, slot, done)]))
            for layer in range(2):
                cache.attend(layer, q[done : done + size], k[done : done + size], v[done : done + size], SCALE)
            done += size
    last = [torch.stack([sequence[part][-1] for sequence in sequences]) for part in range(3)]
    cache.begin(Step(slots=slots, positions=[length - 1 for length in lengths], shared=shared))
    for layer in range(2):
        found = cache.attend(layer, *last, SCALE)
        expected = torch.stack([alone(*sequence) for sequence in sequences])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_a_chunk_attends_to_what_came_before_it_and_to_nothing_later(base: LoadedBase) -> None:
    cache = SlotCache(base.model, slots=2, context_tokens=64)
    q, k, v = draw(50, 1)
    rows = []
    edges = [0, *sorted(random.Random(3).sample(range(1, 50), 4)), 50]
    for begin, end in itertools.pairwise(edges):
        cache.begin(Step(spans=[Span(0, end - begin, 1, begin)]))
        rows.append(cache.attend(0, q[begin:end], k[begin:end], v[begin:end], SCALE))
    expected = torch.stack([alone(q[: i + 1], k[: i + 1], v[: i + 1]) for i in range(50)])
    torch.testing.assert_close(torch.cat(rows), expected, rtol=1e-5, atol=1e-6)


KINDS = {
    "window": Kind(window=13),
    "window of one": Kind(window=1),
    "softcap": Kind(softcap=0.7),
    "sinks": Kind(sinks=torch.tensor([0.5, -1.0, 2.0, 0.0])),
    "all": Kind(window=30, softcap=1.5, sinks=torch.tensor([0.5, -1.0, 2.0, 0.0])),
}


def by_definition(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Every query of one sequence, in float64, one score at a time. q (t, h, d), k and v (t, k, d) -> (t, h, d)."""
    q, k, v = (tensor.double() for tensor in (q, k, v))
    out = torch.zeros_like(q)
    for row, head in itertools.product(range(len(q)), range(HEADS)):
        seen = range(0 if kind.window is None else max(0, row + 1 - kind.window), row + 1)
        scores = [float(q[row, head] @ k[i, head // (HEADS // KEY_HEADS)]) * SCALE for i in seen]
        if kind.softcap is not None:
            scores = [math.tanh(score / kind.softcap) * kind.softcap for score in scores]
        total = sum(map(math.exp, scores))
        if kind.sinks is not None:
            total += math.exp(float(kind.sinks[head]))
        for i, score in zip(seen, scores, strict=True):
            out[row, head] += math.exp(score) / total * v[i, head // (HEADS // KEY_HEADS)]
    return out.float()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_windows_caps_and_sinks_are_what_they_are_defined_as(base: LoadedBase, kind: Kind) -> None:
    cache = SlotCache(base.model, slots=3, context_tokens=64)
    lengths = [45, 12, 50]
    sequences = [draw(length, seed) for seed, length in enumerate(lengths)]
    expected = [by_definition(*sequence, kind) for sequence in sequences]
    found: list[list[torch.Tensor]] = [[], [], []]
    for slot, (q, k, v) in enumerate(sequences):
        edges = [0, 5, len(q) - 6, len(q) - 3]
        for begin, end in itertools.pairwise(edges):
            cache.begin(Step(spans=[Span(0, end - begin, slot, begin)]))
            found[slot].append(cache.attend(1, q[begin:end], k[begin:end], v[begin:end], SCALE, kind))
    for left in (3, 2, 1):  # the last three of each together, in one step
        rows = [torch.stack([sequence[part][-left] for sequence in sequences]) for part in range(3)]
        cache.begin(Step(slots=[0, 1, 2], positions=[length - left for length in lengths]))
        for slot, row in enumerate(cache.attend(1, *rows, SCALE, kind)):
            found[slot].append(row[None])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.cat(one), other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind", [Kind(softcap=0.7), KINDS["sinks"], Kind(window=80)], ids=["softcap", "sinks", "window"]
)
@torch.inference_mode()
def test_a_common_beginning_read_once_is_the_same_attention(base: LoadedBase, kind: Kind) -> None:
    q, k, v = draw(90, 1)
    found = []
    for shared in (0, 70):
        cache = SlotCache(base.model, slots=2, context_tokens=128)
        for slot in range(2):
            cache.begin(Step(spans=[Span(0, 89, slot, 0)]))
            cache.attend(0, q[:89], k[:89], v[:89], SCALE, kind)
        last = [tensor[-1:].expand(2, -1, -1) for tensor in (q, k, v)]
        cache.begin(Step(slots=[0, 1], positions=[89, 89], shared=shared))
        found.append(cache.attend(0, *last, SCALE, kind))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_attention_of_an_unknown_kind_is_refused(base: LoadedBase) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    install_slots(base.model, SlotCache(base.model, slots=1, context_tokens=64))
    attention = ALL_ATTENTION_FUNCTIONS["espalier_slots"]
    module = base.model.model.layers[0].self_attn
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in draw(3, 0))
    with pytest.raises(UnsupportedModel):
        attention(module, q, k, v, None, scaling=SCALE, position_bias=torch.zeros(3, 3))
