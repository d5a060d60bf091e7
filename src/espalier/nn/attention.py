"""Exact attention inside the segments of a pack, for training: no padding, no mask in memory, no repeated key heads.

A segment is (start, end, prefix_start, prefix_end): its rows attend causally to their own segment and fully to its
prefix, a stretch computed elsewhere in the pack (a prompt that several answers share). Compiled on a CPU where a
compiler is found, torch's variable-length flash attention on CUDA where it can do the layout, plain torch otherwise:
the same function of the same numbers. Knows no model and no weights.

Legend: t positions, h heads, kv key heads (h a multiple), d head width, s segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from espalier.nn import attentionblocks
from espalier.nn.kernels import attention as compiled
from espalier.nn.rotary import Rotation, turn

Segments = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Reach:
    """How a row scores and what it may see: `window` counts the keys of prefix and segment, the row's own included."""

    scale: float
    window: int | None = None
    softcap: float | None = None


def segment_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Segments,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """softmax(scale q k^T) v for each row over what it may see: q (t, h, d), k and v (t, kv, d) -> (t, h, d).

    segments (s, 4) int32. Scores are bent to softcap * tanh(score / softcap) where a cap is given. A position in no
    segment answers zero.
    """
    segments = _tidy(segments, len(q))
    reach = Reach(scale, window, softcap)
    if q.is_cuda and _fits_varlen(q, segments, reach):
        return _varlen(q, k, v, segments, reach)
    return _SegmentAttention.apply(q, k, v, segments, reach)  # type: ignore[no-any-return, no-untyped-call]


def attend(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments, reach: Reach, rotation: Rotation | None = None
) -> tuple[Tensor, Tensor]:
    """The attention without autograd: out (t, h, d), and the log-sum-exp (t, h) that `attend_backward` asks for."""
    segments = _tidy(segments, len(q))
    layout = _layout(segments, reach, rotation)
    if compiled.can_attend(q, k, v, layout):
        return compiled.attend(q, k, v, layout)
    if rotation is not None:
        q, k = turn(q, rotation), turn(k, rotation)
    return attentionblocks.attend(q, k, v, segments, reach.scale, reach.window, reach.softcap)


def attend_backward(
    dout: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    segments: Segments,
    reach: Reach,
    rotation: Rotation | None,
    into: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Write the gradients of q, k and v into the three tensors `into`; `saved` is q, k, v, out and the log-sum-exp."""
    q, k, v, out, lse = saved
    segments = _tidy(segments, len(q))
    layout = _layout(segments, reach, rotation)
    if compiled.can_attend(q, k, v, layout):
        return compiled.attend_backward(dout, saved, layout, into)
    if rotation is not None:
        q, k = turn(q, rotation), turn(k, rotation)
    dq, dk, dv = attentionblocks.attend_backward(
        dout, q, k, v, out, lse, segments, reach.scale, reach.window, reach.softcap
    )
    if rotation is not None:
        dq, dk = turn(dq, rotation, back=True), turn(dk, rotation, back=True)
    for gradient, place in zip((dq, dk, dv), into, strict=True):
        place.copy_(gradient)


class _SegmentAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, segments: Segments, reach: Reach) -> Tensor:
        out, lse = attend(q, k, v, segments, reach)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.segments, ctx.reach = segments, reach
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        into = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in saved[:3])
        attend_backward(grads[0], saved, ctx.segments, ctx.reach, None, into)  # type: ignore[arg-type]
        return *into, None, None


def _layout(segments: Segments, reach: Reach, rotation: Rotation | None) -> compiled.Layout:
    cos, sin = (None, None) if rotation is None else (rotation.cos, rotation.sin)
    return compiled.Layout(segments, reach.scale, reach.window, reach.softcap, cos, sin)


def _tidy(segments: Segments, tokens: int) -> Segments:
    tidy = np.ascontiguousarray(segments, dtype=np.int32).reshape(-1, 4)
    if len(tidy) and (tidy.min() < 0 or tidy.max() > tokens):
        raise IndexError(f"a segment reaches beyond the {tokens} positions")
    return tidy


def _fits_varlen(q: Tensor, segments: Segments, reach: Reach) -> bool:
    """Whether torch's variable-length flash attention computes this: side by side, no prefix, no cap, 16-bit."""
    side_by_side = len(segments) > 0 and segments[0, 0] == 0 and bool((segments[1:, 0] == segments[:-1, 1]).all())
    return (
        side_by_side
        and int(segments[-1, 1]) == q.shape[0]
        and bool((segments[:, 2] == segments[:, 3]).all())
        and reach.softcap is None
        and q.dtype in (torch.bfloat16, torch.float16)
    )


def _varlen(q: Tensor, k: Tensor, v: Tensor, segments: Segments, reach: Reach) -> Tensor:
    """torch.nn.attention.varlen.varlen_attn: causal is a window of (-1, 0), w keys with the own one (w - 1, 0)."""
    from torch.nn.attention.varlen import varlen_attn

    bounds = torch.from_numpy(np.append(segments[:, 0], segments[-1, 1]).astype(np.int32)).to(q.device)
    longest = int((segments[:, 1] - segments[:, 0]).max())
    left = -1 if reach.window is None else reach.window - 1
    out = varlen_attn(
        q,
        k,
        v,
        bounds,
        bounds,
        longest,
        longest,
        scale=reach.scale,
        window_size=(left, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out if isinstance(out, Tensor) else out[0]
