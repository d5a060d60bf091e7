"""Attention over a cache of fixed slots, for steps that mix fresh prompts with answers under way.

One sequence of t rows goes through the model: first the rows that each continue an answer (one per slot), then chunks
of prompts. Registered with transformers' AttentionInterface, so its modelling code stays as it is. Knows no request.

Shapes: t rows of the step, n answers under way, h heads, k key heads, g = h / k, d head width, l cached positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from espalier.core.errors import InvalidInput, UnsupportedModel

NAME = "espalier_slots"
# Options by which a model family departs from plain causal attention; each must be absent for our result to be its own.
_UNKNOWN_OPTIONS = ("softcap", "s_aux", "head_mask", "sinks")


# Rotary embeddings whose frequencies follow the largest position of a batch: a neighbour would change an answer.
_STEP_LENGTH_ROPES = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk of one prompt: rows `begin:end` of the step are positions `first:first + end - begin` of `slot`."""

    begin: int
    end: int
    slot: int
    first: int


@dataclass(slots=True)
class Step:
    """Where each row of a step stands. Rows 0..n-1 continue answers; `slots[i]` and `positions[i]` are row i's place.

    `shared` cached positions at the start are the same tokens for all of them, so they are read once for all.
    """

    slots: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    shared: int = 0


class SlotCache:
    """Keys and values of every layer, (slots, k, l, d) each. Memory is taken only where it is written."""

    def __init__(self, model: PreTrainedModel, slots: int, context_tokens: int) -> None:
        config = model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (slots, heads, context_tokens, width)
        layers = range(config.num_hidden_layers)
        try:
            self.keys = [_zeros(shape, model.dtype, model.device) for _ in layers]
            self.values = [_zeros(shape, model.dtype, model.device) for _ in layers]
        except (MemoryError, torch.OutOfMemoryError) as error:
            gigabytes = 2 * len(layers) * math.prod(shape) * model.dtype.itemsize / 1e9
            raise InvalidInput(
                f"a cache for {slots} requests of {context_tokens} tokens would need {gigabytes:.0f} GB",
                hint="lower serve.max_batch or serve.max_context_tokens",
            ) from error
        self._rows: list[_Run] = []
        self._spans: list[tuple[Span, Tensor | None]] = []

    def copy(self, source: int, target: int, count: int) -> None:
        """Copy the first `count` positions of one slot into another."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :count] = tensor[source, :, :count]

    def scrub(self, slot: int) -> None:
        """Zero a slot in which a computation overflowed: 0 times infinity would be NaN for whoever has it next."""
        for tensor in (*self.keys, *self.values):
            tensor[slot].zero_()

    def begin(self, step: Step) -> None:
        """Prepare what all layers of the coming step share: runs of neighbouring slots, and masks."""
        device, dtype = self.keys[0].device, self.keys[0].dtype
        self._rows = _runs_of(step, device)
        self._spans = [(span, _chunk_mask(span, dtype, device)) for span in step.spans]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Write the step's keys and values, (t, k, d), into their slots and attend; q (t, h, d) -> (t, h, d)."""
        keys, values = self.keys[layer], self.values[layer]
        out = torch.empty_like(q)
        for run in self._rows:
            rows = slice(run.begin, run.end)
            keys[run.slots, :, run.positions] = k[rows]
            values[run.slots, :, run.positions] = v[rows]
            out[rows] = _attend_rows(q[rows], keys[run.block], values[run.block], run, scale)
        for span, mask in self._spans:
            rows, last = slice(span.begin, span.end), span.first + span.end - span.begin
            keys[span.slot, :, span.first : last] = k[rows].transpose(0, 1)
            values[span.slot, :, span.first : last] = v[rows].transpose(0, 1)
            out[rows] = functional.scaled_dot_product_attention(
                q[rows].transpose(0, 1)[None],
                keys[span.slot, None, :, :last],
                values[span.slot, None, :, :last],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=q.shape[1] != k.shape[1],
            )[0].transpose(0, 1)
        return out


@dataclass(frozen=True, slots=True)
class _Run:
    """Answers in neighbouring slots: their cache is one view, no gather."""

    begin: int
    end: int
    block: slice  # of slots
    slots: Tensor  # (n)
    positions: Tensor  # (n)
    shared: int
    longest: int
    unseen: Tensor | None  # (n, 1, 1, longest - shared), true where a row's own positions have ended


def _runs_of(step: Step, device: torch.device) -> list[_Run]:
    runs, begin = [], 0
    for i in range(1, len(step.slots) + 1):
        if i < len(step.slots) and step.slots[i] == step.slots[i - 1] + 1:
            continue
        positions = torch.tensor(step.positions[begin:i], device=device)
        longest = max(step.positions[begin:i]) + 1
        unseen = None
        if min(step.positions[begin:i]) + 1 < longest:
            unseen = (torch.arange(step.shared, longest, device=device) > positions[:, None])[:, None, None]
        block = slice(step.slots[begin], step.slots[begin] + i - begin)
        slots = torch.arange(block.start, block.stop, device=device)
        runs.append(_Run(begin, i, block, slots, positions, step.shared, longest, unseen))
        begin = i
    return runs


def _attend_rows(q: Tensor, keys: Tensor, values: Tensor, run: _Run, scale: float) -> Tensor:
    """One query per slot against all it has cached. q (n, h, d), keys and values (n, k, l, d)."""
    n, h, d = q.shape
    heads, shared = keys.shape[1], run.shared
    q = (q * scale).view(n, heads, h // heads, d)
    scores = torch.matmul(q, keys[:, :, shared : run.longest].transpose(2, 3))  # (n, k, g, l - shared)
    if run.unseen is not None:
        scores.masked_fill_(run.unseen, float("-inf"))
    if shared == 0:
        weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
        return torch.matmul(weights, values[:, :, : run.longest]).view(n, h, d)
    # The common beginning is read once for all n answers: a product of matrices instead of n products with a vector.
    common_q = q.permute(1, 0, 2, 3).reshape(heads, -1, d)  # (k, n g, d)
    common = torch.matmul(common_q, keys[0, :, :shared].transpose(1, 2)).view(heads, n, h // heads, shared)
    weights = torch.cat([common.transpose(0, 1), scores], -1).softmax(-1, dtype=torch.float32).to(q.dtype)
    own = torch.matmul(weights[..., shared:], values[:, :, shared : run.longest])
    common_weights = weights[..., :shared].transpose(0, 1).reshape(heads, -1, shared)
    common_out = torch.matmul(common_weights, values[0, :, :shared]).view(heads, n, h // heads, d)
    return (own + common_out.transpose(0, 1)).reshape(n, h, d)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros whose memory the system hands out page by page as it is written; torch's own would take it all."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    count = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(numpy.zeros(count, dtype=numpy.uint8)).view(dtype).view(shape)


def _chunk_mask(span: Span, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """None when the chunk starts its prompt (plain causal); else what each row may see of all positions so far."""
    if span.first == 0:
        return None
    length = span.end - span.begin
    seen = torch.ones(length, span.first + length, dtype=torch.bool, device=device).tril_(span.first)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))


def install_slots(model: PreTrainedModel, cache: SlotCache) -> None:
    """From now on `model` attends through `cache` only. Raises UnsupportedModel when its code cannot be told to."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") in _STEP_LENGTH_ROPES:
        raise UnsupportedModel(
            f"{type(model).__name__} turns its {rope['rope_type']} rotary positions by the longest of a step",
            hint="serve it with another engine behind the gateway",
        )
    attentions = [module for module in model.modules() if hasattr(module, "layer_idx") and hasattr(module, "scaling")]
    if len(attentions) != len(cache.keys):
        raise UnsupportedModel(
            f"{type(model).__name__} has {len(attentions)} plain attention layers where {len(cache.keys)} are expected",
            hint="serve it with another engine behind the gateway",
        )
    for module in attentions:
        module.slot_cache = cache
    model.set_attn_implementation(NAME)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """transformers' attention function: q, k, v as (1, heads, t, d) -> (1, t, h, d)."""
    window = options.get("sliding_window")
    cache: SlotCache = module.slot_cache  # type: ignore[assignment]
    beyond_window = isinstance(window, int) and window < cache.keys[0].shape[2]
    for option in _UNKNOWN_OPTIONS:
        if options.get(option) is not None or beyond_window:
            raise UnsupportedModel(
                f"this model's attention uses {'a sliding window' if beyond_window else option}",
                hint="serve it with another engine behind the gateway",
            )
    scale = options.get("scaling")
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    out = cache.attend(
        int(module.layer_idx),  # type: ignore[arg-type]
        q,
        k,
        v,
        float(scale) if isinstance(scale, float) else q.shape[-1] ** -0.5,
    )
    return out[None], None


def _no_mask(*args: object, **options: object) -> None:
    """The slots know who sees what; transformers must build no mask."""


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _no_mask)
