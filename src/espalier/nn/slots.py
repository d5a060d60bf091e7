"""Attention over a cache of fixed slots, for steps that mix fresh prompts with answers under way.

One sequence of t rows goes through the model: first the rows that each continue an answer (one per slot), then chunks
of prompts. Registered with transformers' AttentionInterface, so its modelling code stays as it is. Knows no request.

Shapes: t rows of the step, n answers under way, h heads, k key heads, g = h / k, d head width, l cached positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from espalier.core.errors import InvalidInput, UnsupportedModel
from espalier.nn.slotattention import (
    PLAIN,
    Kind,
    Layout,
    Span,
    Step,
    attend_chunk,
    attend_rows,
    reading_of,
    runs_of,
)

__all__ = ["PLAIN", "Kind", "SlotCache", "Span", "Step", "install_slots"]

NAME = "espalier_slots"
# Options by which a model family departs from what `Kind` can say; each must be absent for our result to be its own.
_UNKNOWN_OPTIONS = ("head_mask", "sinks", "position_bias", "attention_chunk_size")
# Rotary embeddings whose frequencies follow the largest position of a batch: a neighbour would change an answer.
_STEP_LENGTH_ROPES = ("dynamic", "longrope")


class SlotCache:
    """Keys and values of every layer, (slots, k, l, d) each. Memory is taken only where it is written."""

    def __init__(self, model: PreTrainedModel, slots: int, context_tokens: int) -> None:
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (slots, heads, context_tokens, width)
        self.context_tokens = context_tokens
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
        self._step = Step()
        self._layouts: dict[int | None, Layout] = {}  # of the step, by window

    @property
    def step(self) -> Step:
        """The step under way."""
        return self._step

    @property
    def dtype(self) -> torch.dtype:
        return self.keys[0].dtype

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
        self._step = step
        self._layouts = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, kind: Kind = PLAIN) -> Tensor:
        """Write the step's keys and values, (t, k, d), into their slots and attend; q (t, h, d) -> (t, h, d)."""
        keys, values = self.keys[layer], self.values[layer]
        layout = self._layout(kind.window)
        out = torch.empty_like(q)
        for run in layout.runs:
            rows = slice(run.begin, run.end)
            keys[run.slots, :, run.positions] = k[rows]
            values[run.slots, :, run.positions] = v[rows]
            out[rows] = attend_rows(q[rows], keys[run.block], values[run.block], run, scale, kind)
        for reading in layout.readings:
            span = reading.span
            rows, last = slice(span.begin, span.end), span.first + span.end - span.begin
            keys[span.slot, :, span.first : last] = k[rows].transpose(0, 1)
            values[span.slot, :, span.first : last] = v[rows].transpose(0, 1)
            seen = slice(reading.start, last)
            out[rows] = attend_chunk(
                q[rows], keys[span.slot, :, seen], values[span.slot, :, seen], reading, scale, kind
            )
        return out

    def _layout(self, window: int | None) -> Layout:
        found = self._layouts.get(window)
        if found is None:
            device, dtype = self.keys[0].device, self.keys[0].dtype
            found = self._layouts[window] = Layout(
                runs_of(self._step, device, window),
                [reading_of(span, dtype, device, window) for span in self._step.spans],
            )
        return found


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros whose memory the system hands out page by page as it is written; torch's own would take it all."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    count = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(numpy.zeros(count, dtype=numpy.uint8)).view(dtype).view(shape)


def install_slots(model: PreTrainedModel, cache: SlotCache) -> None:
    """From now on `model` attends through `cache` only. Raises UnsupportedModel when its code cannot be told to."""
    for kind in _rope_types(model.config.get_text_config()):
        if kind in _STEP_LENGTH_ROPES:
            raise UnsupportedModel(
                f"{type(model).__name__} turns its {kind} rotary positions by the longest of a step",
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


def _rope_types(config: PreTrainedConfig) -> set[str]:
    """Of the whole model, or of each type of its layers."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    return {str(kind["rope_type"]) for kind in kinds if "rope_type" in kind}


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """transformers' attention function: q, k, v as (1, heads, t, d) -> (1, t, h, d)."""
    for option in _UNKNOWN_OPTIONS:
        if options.get(option) is not None:
            raise UnsupportedModel(
                f"this model's attention uses {option}", hint="serve it with another engine behind the gateway"
            )
    cache: SlotCache = module.slot_cache  # type: ignore[assignment]
    scale = options.get("scaling")
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    out = cache.attend(
        int(module.layer_idx),  # type: ignore[arg-type]
        q,
        k,
        v,
        float(scale) if isinstance(scale, int | float) else q.shape[-1] ** -0.5,
        _kind_of(options, cache.context_tokens),
    )
    return out[None], None


def _kind_of(options: Mapping[str, object], context_tokens: int) -> Kind:
    window, softcap, sinks = (options.get(name) for name in ("sliding_window", "softcap", "s_aux"))
    return Kind(
        window if isinstance(window, int) and window < context_tokens else None,
        float(softcap) if isinstance(softcap, int | float) else None,
        sinks if isinstance(sinks, Tensor) else None,
    )


def _no_mask(*args: object, **options: object) -> None:
    """The slots know who sees what; transformers must build no mask."""


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _no_mask)
