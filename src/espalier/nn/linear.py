"""`AdapterLinear`: a frozen linear layer with a LoRA or a DoRA beside it, for training. Knows no model and no file.

Shapes: t tokens (all leading dimensions together), i in, o out, r rank.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from espalier.nn.dora import DoraProduct, row_lengths
from espalier.nn.dropout import Keep, draw_keep
from espalier.nn.frozen import FrozenWeight, dense, settled
from espalier.nn.lora import LoraSpec


class LoraProduct(torch.autograd.Function):
    """y = x W^T + bias + s (d A^T) B^T with W and bias frozen; d is x, or what dropout keeps of it.

    Against autograd's own graph it keeps only x and (t, r) numbers per layer, computes no gradient of W, and adds the
    adapter's part in place: no second (t, o) buffer. The inputs are needed again only for the gradient of A. A
    quantised W is dense during its products only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: FrozenWeight,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        keep: Keep | None,
    ) -> Tensor:
        a_, b_ = a.to(x.dtype), b.to(x.dtype)
        flat = x.reshape(-1, x.shape[-1])  # (t, i)
        inner = (flat if keep is None else keep.of(x).view(flat.shape)) @ a_.t()  # (t, r)
        y = functional.linear(flat, dense(weight, x.dtype), bias).addmm_(inner, b_.t(), alpha=scale)
        ctx.save_for_backward(x, inner, a_, b_)
        ctx.weight, ctx.scale, ctx.keep, ctx.trained_dtype = weight, scale, keep, a.dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, a, b = ctx.saved_tensors
        dy = gradients[0].reshape(-1, gradients[0].shape[-1])  # (t, o)
        inner_in = (x if ctx.keep is None else ctx.keep.of(x)).reshape(-1, x.shape[-1])
        d_inner = (dy @ b).mul_(ctx.scale)  # (t, r)
        d_b = (dy.t() @ inner).to(ctx.trained_dtype).mul_(ctx.scale)
        d_a = (d_inner.t() @ inner_in).to(ctx.trained_dtype)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy @ dense(ctx.weight, x.dtype)
            if ctx.keep is None:
                dx = dx.addmm_(d_inner, a).view(x.shape)
            else:
                dx = dx.view(x.shape).add_(ctx.keep.of((d_inner @ a).view(x.shape)))
        return dx, None, None, d_a, d_b, None, None


class FrozenLinear(Protocol):
    """What an adapter stands on: torch's linear layer, or a quantised one."""

    in_features: int
    out_features: int
    bias: Any
    weight: Any

    def __call__(self, x: Tensor) -> Tensor: ...


class AdapterLinear(nn.Module):
    """Stands in the place of `base` (kept, frozen). All of it that is trained is float32.

    `a` (r, i), `b` (o, r), and with DoRA `magnitude` (o), which else is None. It starts as the base layer itself; A's
    start depends on (seed, name) alone.
    """

    magnitude: nn.Parameter | None

    def __init__(self, name: str, base: nn.Module, spec: LoraSpec, seed: int) -> None:
        super().__init__()
        self.name = name
        self.base = base.requires_grad_(False)
        self.scale = spec.scale_of(name)
        self.dropout = spec.dropout
        layer: FrozenLinear = base  # type: ignore[assignment]
        self.in_features, self.out_features = layer.in_features, layer.out_features
        rank = spec.rank_of(name)
        device = next((t.device for t in (*base.parameters(), *base.buffers())), torch.device("cpu"))
        self.a = nn.Parameter(_start(rank, layer.in_features, spec.init, f"{seed}:{name}").to(device))
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank, device=device))
        self.magnitude = nn.Parameter(row_lengths(dense(layer.weight, torch.float32))) if spec.dora else None

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def parts(self) -> dict[str, nn.Parameter]:
        """What is trained, by PEFT's names."""
        pair = {"lora_A.weight": self.a, "lora_B.weight": self.b}
        return pair if self.magnitude is None else pair | {"lora_magnitude_vector": self.magnitude}

    def forward(self, x: Tensor) -> Tensor:  # (..., i) -> (..., o)
        base: FrozenLinear = self.base  # type: ignore[assignment]
        y: Tensor
        with settled(x) as x:
            keep = draw_keep(x, self.dropout, self.name)
            bias = None if base.bias is None else base.bias.to(x.dtype)
            given = (x, base.weight, bias, self.a, self.b)
            if self.magnitude is None:
                y = LoraProduct.apply(*given, self.scale, keep)  # type: ignore[no-untyped-call]
            else:
                y = DoraProduct.apply(*given, self.magnitude, self.scale, keep)  # type: ignore[no-untyped-call]
        return y


def _start(rank: int, inputs: int, init: str, noise: str) -> Tensor:
    """A's first values, (rank, inputs), drawn on the CPU wherever they go."""
    digest = hashlib.sha256(noise.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    drawn = torch.empty(rank, inputs)
    if init == "gaussian":
        return drawn.normal_(std=1 / rank, generator=generator)
    bound = 1 / math.sqrt(inputs)  # as torch and PEFT draw it: kaiming(a = sqrt 5)
    return drawn.uniform_(-bound, bound, generator=generator)
