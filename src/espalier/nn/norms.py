"""RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), computed in float32 and rounded once.

Keeps its input alone: the scale of a row is made again in backward. Compiled on a CPU where a compiler is found. Knows
no model.

Legend: rows of m numbers, in two dimensions or three.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from espalier.nn.kernels import rows


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, offset: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps, ctx.offset = eps, offset
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        normalise(x, weight, eps, out, offset)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        dweight = torch.zeros_like(_wide(weight)) if ctx.needs_input_grad[1] else None
        normalise_backward(grads[0], x, weight, ctx.eps, dx, dweight, ctx.offset, add=False)
        return dx, None if dweight is None else dweight.to(weight.dtype), None, None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None, offset: float = 0.0) -> Tensor:
    """x / rms(x) * (offset + weight) over the last dimension, in `dtype` (None: x's own). `offset` 1: Gemma's."""
    return _RmsNorm.apply(x, weight, eps, dtype or x.dtype, offset)  # type: ignore[no-any-return, no-untyped-call]


def normalise(x: Tensor, weight: Tensor, eps: float, out: Tensor, offset: float = 0.0) -> None:
    """`rms_norm` without autograd, written to `out`, which may be x itself; for a layer with a backward of its own."""
    if rows.can_norm(x, out):
        rows.norm(x, _gain(weight, offset).contiguous(), eps, out)
        return
    wide = _wide(x)
    out.copy_((wide * _scale(wide, eps)).mul_(_gain(weight, offset)))


def normalise_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    eps: float,
    dx: Tensor,
    dweight: Tensor | None,
    offset: float = 0.0,
    *,
    add: bool = True,
) -> None:
    """Add the gradient of x to `dx`, or write it there; `dx` may be dy. Add the weight's to `dweight` (m) if given.

    dx has x's type, dweight is float32 (float64 if x is).
    """
    gain = _gain(weight, offset)
    if rows.can_norm(x, dy, dx) and dx.dtype == x.dtype and (dweight is None or dweight.dtype == torch.float32):
        rows.norm_backward(dy, x, gain.contiguous(), eps, dx, dweight, add=add)
        return
    wide, given = _wide(x), _wide(dy)
    scale = _scale(wide, eps)
    unit = wide * scale
    if dweight is not None:
        dweight += (given * unit).flatten(0, -2).sum(0)
    d = given * gain
    inner = (d * unit).mean(-1, keepdim=True)
    d.addcmul_(unit, inner.expand_as(unit), value=-1.0).mul_(scale)
    dx.copy_(dx + d if add else d)


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / rms of each row."""
    return torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _gain(weight: Tensor, offset: float) -> Tensor:
    return _wide(weight) + offset if offset else _wide(weight)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
