"""Fused frozen projections with a LoRA on each part: one product for q, k and v, and no gradient of a frozen weight.

Knows names and matrices, no model. The frozen parts are laid under one another once, at their first use.

Legend: t tokens, i in, o out (all parts together), r rank, k adapted parts of the projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class _LowRankProduct(torch.autograd.Function):
    """y = x W^T, and for each adapted part s x A^T B^T added in its own columns."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scale: float, columns: tuple[slice, ...], *pairs: Tensor
    ) -> Tensor:
        downs, ups = pairs[0::2], [up.to(x.dtype) for up in pairs[1::2]]
        down = torch.cat(downs).to(x.dtype)  # (k r, i)
        inner = x @ down.t()  # (t, k r)
        y = x @ weight.t()
        for span, up, part in zip(columns, ups, inner.chunk(len(ups), 1), strict=True):
            y[:, span].addmm_(part, up.t(), alpha=scale)
        ctx.save_for_backward(x, weight, down, inner, *ups)
        ctx.scale, ctx.columns, ctx.trained = scale, columns, pairs[0].dtype
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dy = grads[0]
        x, weight, down, inner, *ups = ctx.saved_tensors
        d_inner = torch.empty_like(inner)
        d_ups = []
        for span, up, part, d_part in zip(
            ctx.columns, ups, inner.chunk(len(ups), 1), d_inner.chunk(len(ups), 1), strict=True
        ):
            d_part.copy_(dy[:, span] @ up)
            d_ups.append((dy[:, span].t() @ part).to(ctx.trained).mul_(ctx.scale))
        d_inner.mul_(ctx.scale)
        d_downs = (d_inner.t() @ x).to(ctx.trained).chunk(len(ups))
        dx = torch.addmm(dy @ weight, d_inner, down) if ctx.needs_input_grad[0] else None
        pairs = [grad for pair in zip(d_downs, d_ups, strict=True) for grad in pair]
        return dx, None, None, None, *pairs


@dataclass(slots=True)
class LowRankProjections:
    """Projections of a frozen Llama, some with an adapter: `pairs` holds A (r, in) and B (out, r) by weight name."""

    weights: Mapping[str, Tensor]  # frozen, in the compute type
    pairs: Mapping[str, tuple[Tensor, Tensor]]  # float32, trained
    scale: float
    _fused: dict[tuple[str, ...], Tensor] = field(default_factory=dict)

    def __call__(self, x: Tensor, *names: str) -> Tensor:
        """The named projections of x (t, i), side by side: (t, o)."""
        weight = self._fused.get(names)
        if weight is None:
            weight = self._fused[names] = torch.cat([self.weights[name] for name in names])
        columns: list[slice] = []
        pairs: list[Tensor] = []
        start = 0
        for name in names:
            end = start + self.weights[name].shape[0]
            if name in self.pairs:
                columns.append(slice(start, end))
                pairs += self.pairs[name]
            start = end
        if not pairs:
            return x @ weight.t()
        return _LowRankProduct.apply(x, weight, self.scale, tuple(columns), *pairs)  # type: ignore[no-any-return, no-untyped-call]
