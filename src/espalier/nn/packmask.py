"""Attention of packed documents inside transformers' own modelling code.

A model that looks its attention function up in transformers' `AttentionInterface`
(https://huggingface.co/docs/transformers/attention_interface) also asks for its masks by that name. Under `PACKED` the
mask it gets is no tensor but the pack's segments and the window of the layers it is for, and the attention function
computes each segment by them. So no mask of t x t exists, a sliding window is the very one the model's own code asked
for, and a layer that is computed again in the backward pass still carries its segments. Knows no model.

Legend: t positions, h heads, d head width, s segments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from espalier.core.errors import UnsupportedModel
from espalier.nn.attention import segment_attention
from espalier.tokens.pack import Int32

PACKED = "espalier_packed"

_SEGMENTS: ContextVar[Int32] = ContextVar("espalier_segments")


@dataclass(frozen=True, slots=True)
class PackMask:
    """What stands in a mask's place: who attends to whom, and how far back (None: to the beginning)."""

    segments: Int32  # (s, 4), see tokens/pack
    window: int | None


@contextmanager
def packed(segments: Int32) -> Iterator[None]:
    """Inside, models of this thread that are set to `PACKED` take their input for a pack of these segments."""
    token = _SEGMENTS.set(segments)
    try:
        yield
    finally:
        _SEGMENTS.reset(token)


def register() -> None:
    """Make `PACKED` known to transformers; may be repeated."""
    ALL_ATTENTION_FUNCTIONS.register(PACKED, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, _mask)


def _mask(*args: Any, local_size: int | None = None, use_vmap: bool = False, **options: Any) -> PackMask:
    """The mask of one kind of layer. transformers calls it as it would `sdpa_mask`."""
    if use_vmap:
        raise UnsupportedModel("its attention mask is not causal alone, and a pack has no other")
    if "allow_is_bidirectional_skip" in options:
        raise UnsupportedModel("its attention is not causal")
    segments = _SEGMENTS.get(None)
    if segments is None:
        raise UnsupportedModel(
            "this model is set for packed training",
            hint=f"outside of it call set_attn_implementation('sdpa') instead of {PACKED!r}",
        )
    return PackMask(segments, local_size)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: PackMask | Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of a layer over a pack: query (1, h, t, d), key and value (1, kv, t, d) -> (1, t, h, d)."""
    if not isinstance(attention_mask, PackMask) or query.shape[0] != 1:
        raise UnsupportedModel("its layers make attention masks of their own")
    if position_bias is not None:
        raise UnsupportedModel("its attention adds a bias by position")
    width = value.shape[-1]
    dtype = torch.promote_types(torch.promote_types(query.dtype, key.dtype), value.dtype)
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
    q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))  # (t, h, d)
    scale = q.shape[-1] ** -0.5 if scaling is None else float(scaling)
    segments, window = attention_mask.segments, attention_mask.window
    if s_aux is not None:
        if softcap is not None:
            raise UnsupportedModel("its attention has both sinks and a softcap")
        return sink_attention(q, k, v, s_aux, segments, scale, window)[None], None
    if width < q.shape[-1]:  # latent attention: values narrower than keys
        v = functional.pad(v, (0, q.shape[-1] - width))
    out = segment_attention(q, k, v, segments, scale, window, softcap)
    return out[None, :, :, :width], None


def sink_attention(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, segments: Int32, scale: float, window: int | None
) -> Tensor:
    """Attention in which each head may also look at nothing, at a learnt score: q (t, h, d), sinks (h,) -> (t, h, d).

    As in gpt-oss (https://arxiv.org/abs/2508.10925); plain torch, one segment at a time.
    """
    groups = q.shape[1] // k.shape[1]
    parts = []
    for start, end, prefix_start, prefix_end in segments.tolist():
        before = prefix_end - prefix_start
        keys = torch.cat([k[prefix_start:prefix_end], k[start:end]]).repeat_interleave(groups, 1)
        values = torch.cat([v[prefix_start:prefix_end], v[start:end]]).repeat_interleave(groups, 1)
        scores = torch.einsum("qhd,khd->hqk", q[start:end], keys) * scale
        back = torch.arange(end - start, device=q.device)[:, None] + before - torch.arange(len(keys), device=q.device)
        hidden = back < 0 if window is None else (back < 0) | (back >= window)
        scores = scores.masked_fill(hidden, float("-inf")).float()
        sink = sinks.float()[:, None, None].expand(-1, end - start, 1)
        shares = torch.softmax(torch.cat([scores, sink], -1), -1)[..., :-1].to(v.dtype)
        parts.append(torch.einsum("hqk,khd->qhd", shares, values))
    return torch.cat(parts)  # segments stand one after another and leave nothing out
