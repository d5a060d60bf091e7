"""Gated activations of a feed-forward layer over the fused product of gate and up (Shazeer 2020, arXiv 2002.05202).

Only the product is kept for the backward pass, and its gradient is one buffer. Knows no model.

Legend: t rows, f hidden width; `both` (t, 2 f) holds the gate's half, then the other.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Gate = Literal["silu", "gelu"]


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor, gate: Gate) -> Tensor:
        ctx.save_for_backward(both)
        ctx.gate = gate
        return gated(both, gate)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (both,) = ctx.saved_tensors
        return gated_gradient(grads[0], both, ctx.gate), None


def swiglu(both: Tensor) -> Tensor:
    """silu(both[:, :f]) * both[:, f:], (t, f)."""
    return _Gated.apply(both, "silu")  # type: ignore[no-any-return, no-untyped-call]


def geglu(both: Tensor) -> Tensor:
    """gelu(both[:, :f]) * both[:, f:] with gelu's tanh form, (t, f)."""
    return _Gated.apply(both, "gelu")  # type: ignore[no-any-return, no-untyped-call]


def gated(both: Tensor, gate: Gate) -> Tensor:
    """`swiglu` or `geglu` without autograd, for a layer with a backward pass of its own."""
    a, b = both.chunk(2, -1)
    if gate == "silu":
        return functional.silu(a).mul_(b)
    return functional.gelu(a, approximate="tanh").mul_(b)


def gated_gradient(dy: Tensor, both: Tensor, gate: Gate) -> Tensor:
    """The gradient of `both` (t, 2 f) for dy (t, f)."""
    a, b = both.chunk(2, -1)
    out = torch.empty_like(both)
    da, db = out.chunk(2, -1)
    if gate == "silu":
        torch.mul(dy, functional.silu(a), out=db)
        da.copy_(torch.ops.aten.silu_backward(dy * b, a))
    else:
        torch.mul(dy, functional.gelu(a, approximate="tanh"), out=db)
        da.copy_(torch.ops.aten.gelu_backward(dy * b, a, approximate="tanh"))
    return out


def gate(both: Tensor, out: Tensor) -> None:
    """`swiglu` without autograd, written to `out` (t, f)."""
    out.copy_(gated(both, "silu"))


def gate_backward(dout: Tensor, both: Tensor, dboth: Tensor, out: Tensor | None) -> None:
    """Write the gradient of `both` to `dboth`, which may be `both` itself, and the product again to `out` if given."""
    gradient = gated_gradient(dout, both, "silu")
    if out is not None:
        gate(both, out)
    dboth.copy_(gradient)
