"""`AdapterLinear`: a frozen linear layer with a LoRA beside it, for training. Knows no model and no file.

Shapes: t tokens (all leading dimensions together), i in, o out, r rank.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class LoraProduct(torch.autograd.Function):
    """y = x W^T + bias + s (d A^T) B^T with W and bias frozen; d is x, or x after dropout.

    Against autograd's own graph it keeps only x and (t, r) numbers per layer, computes no gradient of W, and adds the
    adapter's part in place: no second (t, o) buffer. The inputs are needed again only for the gradient of A.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        a_, b_ = a.to(x.dtype), b.to(x.dtype)
        flat = x.reshape(-1, x.shape[-1])  # (t, i)
        inner_in = flat if dropped is None else dropped.reshape(flat.shape)
        inner = inner_in @ a_.t()  # (t, r)
        y = functional.linear(flat, weight, bias).addmm_(inner, b_.t(), alpha=scale)
        ctx.save_for_backward(inner_in, inner, weight, a_, b_)
        ctx.scale, ctx.trained_dtype, ctx.with_dropout = scale, a.dtype, dropped is not None
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inner_in, inner, weight, a, b = ctx.saved_tensors
        dy = gradients[0]
        shape = (*dy.shape[:-1], weight.shape[1])
        dy = dy.reshape(-1, dy.shape[-1])  # (t, o)
        d_inner = (dy @ b).mul_(ctx.scale)  # (t, r)
        d_b = (dy.t() @ inner).to(ctx.trained_dtype).mul_(ctx.scale)
        d_a = (d_inner.t() @ inner_in).to(ctx.trained_dtype)
        dx = d_dropped = None
        if ctx.needs_input_grad[0]:
            dx = dy @ weight
            if not ctx.with_dropout:
                dx.addmm_(d_inner, a)
            dx = dx.view(shape)
        if ctx.with_dropout and ctx.needs_input_grad[1]:
            d_dropped = (d_inner @ a).view(shape)
        return dx, d_dropped, None, None, d_a, d_b, None


class AdapterLinear(nn.Module):
    """Stands in the place of `base` (kept, frozen). `a` (r, i) and `b` (o, r) are trained in float32."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = scale
        self.dropout = dropout
        self.enabled = True
        device = base.weight.device
        # As torch and PEFT draw A: uniform with the bound of kaiming(a=sqrt 5), which is 1/sqrt(in). B starts at zero.
        bound = 1 / math.sqrt(base.in_features)
        drawn = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(drawn.to(device))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:  # (..., i) -> (..., o)
        if not self.enabled:
            return functional.linear(x, self.base.weight, self.base.bias)
        dropped = functional.dropout(x, self.dropout) if self.training and self.dropout > 0 else None
        y: Tensor = LoraProduct.apply(  # type: ignore[no-untyped-call]
            x, dropped, self.base.weight, self.base.bias, self.a, self.b, self.scale
        )
        return y
