"""Attention over slots against plain attention over each sequence alone."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch.nn import functional

from espalier.core.errors import UnsupportedModel
from espalier.nn.base import LoadedBase
from espalier.nn.slots import SlotCache, Span, Step, install_slots

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


@pytest.mark.parametrize(
    "option", [{"softcap": 30.0}, {"sliding_window": 32}, {"s_aux": torch.zeros(4)}], ids=["softcap", "window", "sinks"]
)
def test_attention_of_another_kind_is_refused(base: LoadedBase, option: dict[str, object]) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    install_slots(base.model, SlotCache(base.model, slots=1, context_tokens=64))
    attention = ALL_ATTENTION_FUNCTIONS["espalier_slots"]
    module = base.model.model.layers[0].self_attn
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in draw(3, 0))
    with pytest.raises(UnsupportedModel):
        attention(module, q, k, v, None, scaling=SCALE, **option)
