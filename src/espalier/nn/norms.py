"""RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), alone and together with the residual sum before it.

Computed in float32 and rounded once; keeps the input and one number per row. Knows no model.

Legend: t rows, m numbers in a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, offset: float) -> Tensor:
        y, scale = _normed(x, weight, eps, dtype, offset)
        ctx.save_for_backward(x, weight, scale)
        ctx.offset = offset
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight, scale = ctx.saved_tensors
        dx, dweight = _norm_gradients(grads[0], None, x, weight, scale, ctx.offset, ctx.needs_input_grad[1])
        return dx, dweight, None, None, None


class _AddRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, offset: float
    ) -> tuple[Tensor, Tensor]:
        total, y, scale = _added(x, delta, weight, eps, dtype, offset)
        ctx.save_for_backward(total, weight, scale)
        ctx.offset, ctx.delta_dtype = offset, delta.dtype
        return total, y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        total, weight, scale = ctx.saved_tensors
        dtotal, dy = grads
        dx, dweight = _norm_gradients(dy, dtotal, total, weight, scale, ctx.offset, ctx.needs_input_grad[2])
        return dx, dx.to(ctx.delta_dtype), dweight, None, None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None, offset: float = 0.0) -> Tensor:
    """x / rms(x) * (offset + weight) over the last dimension, in `dtype` (None: x's own). `offset` 1: Gemma's."""
    return _RmsNorm.apply(x, weight, eps, dtype or x.dtype, offset)  # type: ignore[no-any-return, no-untyped-call]


def add_rms_norm(
    x: Tensor, delta: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(x + delta, its `rms_norm`): the residual sum in x's type, the normed rows in `dtype`; one pass over memory."""
    return _AddRmsNorm.apply(x, delta, weight, eps, dtype or x.dtype, offset)  # type: ignore[no-any-return, no-untyped-call]


def normalise(x: Tensor, weight: Tensor, eps: float, out: Tensor, offset: float = 0.0) -> None:
    """`rms_norm` without autograd, written to `out`, which may be x itself; for a layer with a backward of its own."""
    out.copy_(_normed(x, weight, eps, out.dtype, offset)[0])


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
    """Add the gradient of x to `dx`, or write it there; add the weight's to `dweight` (m) where one is given."""
    scale = torch.rsqrt(_wide(x).square().mean(-1, keepdim=True) + eps)
    gradient, of_weight = _norm_gradients(dy, dx if add else None, x, weight, scale, offset, dweight is not None)
    dx.copy_(gradient)
    if dweight is not None and of_weight is not None:
        dweight += of_weight


def _normed(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, offset: float) -> tuple[Tensor, Tensor]:
    """The normed rows and 1 / rms of each."""
    wide = _wide(x)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).mul_(_gain(weight, offset)).to(dtype), scale


def _added(
    x: Tensor, delta: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, offset: float
) -> tuple[Tensor, Tensor, Tensor]:
    total = x + delta.to(x.dtype)
    return total, *_normed(total, weight, eps, dtype, offset)


def _norm_gradients(
    dy: Tensor, also: Tensor | None, x: Tensor, weight: Tensor, scale: Tensor, offset: float, need_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradient of x, in x's type, `also` added; and the weight's, in its own."""
    wide, dy = _wide(x), _wide(dy)
    unit = wide * scale
    dweight = (dy * unit).flatten(0, -2).sum(0).to(weight.dtype) if need_weight else None
    dunit = dy * _gain(weight, offset)
    inner = (dunit * unit).mean(-1, keepdim=True)
    dx = dunit.addcmul_(unit, inner.expand_as(unit), value=-1.0).mul_(scale)
    if also is not None:
        dx += also
    return dx.to(x.dtype), dweight


def _gain(weight: Tensor, offset: float) -> Tensor:
    return _wide(weight) + offset if offset else _wide(weight)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
