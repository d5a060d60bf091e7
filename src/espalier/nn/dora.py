"""DoRA's product: a low-rank update whose rows keep a length of their own. Knows matrices only.

Liu et al. 2024, https://arxiv.org/abs/2402.09353: y = g (W + s B A) x + bias with g = m / |W + s B A|, row by row; the
length counts as a constant in the backward pass (section 4.3 there, and PEFT). Under dropout the update alone is
multiplied by less: as PEFT, y = W x + (g - 1) W d + g s B A d with d what is kept of x.

Shapes: t tokens, i in, o out, r rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from espalier.nn.dropout import Keep
from espalier.nn.frozen import FrozenWeight, dense


def row_lengths(weight: Tensor, a: Tensor | None = None, b: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """|W + s B A| of each row, (o,) float32 (or 64, if W is), without ever forming the sum; |W| without a and b.

    |w + s b A|^2 = |w|^2 + 2 s (w A^T) b + s^2 b (A A^T) b^T for a row w of W and b of B.
    """
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if a is None or b is None:
        return weight.square().sum(1).sqrt_()
    a, b = a.to(weight.dtype), b.to(weight.dtype)
    crossed = (weight @ a.t()).mul_(2 * scale).add_(b @ (a @ a.t()), alpha=scale * scale)  # (o, r)
    return weight.square().sum(1).add_(crossed.mul_(b).sum(1)).clamp_(min=0).sqrt_()


class DoraProduct(torch.autograd.Function):
    """The product above, W and bias frozen. Beside x it keeps one (t, o) buffer: what the rows' gains multiply."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: FrozenWeight,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        magnitude: Tensor,
        scale: float,
        keep: Keep | None,
    ) -> Tensor:
        a_, b_ = a.to(x.dtype), b.to(x.dtype)
        flat = x.reshape(-1, x.shape[-1])  # (t, i)
        inner_in = flat if keep is None else keep.of(x).view(flat.shape)
        w = dense(weight, x.dtype)
        lengths = row_lengths(w, a, b, scale)
        gain = (magnitude / lengths).to(x.dtype)
        inner = inner_in @ a_.t()  # (t, r)
        turned = (inner_in @ w.t()).addmm_(inner, b_.t(), alpha=scale)  # (t, o)
        y = turned * gain
        if keep is not None:
            y += (flat - inner_in) @ w.t()
        if bias is not None:
            y += bias
        ctx.save_for_backward(x, inner, turned, a_, b_, gain, lengths)
        ctx.weight, ctx.scale, ctx.keep, ctx.trained_dtype = weight, scale, keep, a.dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, turned, a, b, gain, lengths = ctx.saved_tensors
        dy = gradients[0].reshape(-1, gradients[0].shape[-1])  # (t, o)
        inner_in = (x if ctx.keep is None else ctx.keep.of(x)).reshape(-1, x.shape[-1])
        d_magnitude = torch.linalg.vecdot(dy, turned, dim=0).to(ctx.trained_dtype) / lengths
        d_turned = dy * gain
        d_inner = (d_turned @ b).mul_(ctx.scale)  # (t, r)
        d_b = (d_turned.t() @ inner).to(ctx.trained_dtype).mul_(ctx.scale)
        d_a = (d_inner.t() @ inner_in).to(ctx.trained_dtype)
        dx = None
        if ctx.needs_input_grad[0]:
            w = dense(ctx.weight, x.dtype)
            d_kept = torch.addmm(d_inner @ a, d_turned, w).view(x.shape)
            # W x - W d of the dropped part: its gradient is dy W, less what dropout keeps of it.
            dx = d_kept if ctx.keep is None else _past_dropout(d_kept, (dy @ w).view(x.shape), ctx.keep)
        return dx, None, None, d_a, d_b, d_magnitude, None, None


def _past_dropout(d_kept: Tensor, d_whole: Tensor, keep: Keep) -> Tensor:
    return d_whole.add_(keep.of(d_kept.sub_(d_whole)))
