"""Gated activations of a feed-forward layer over the fused product of gate and up (Shazeer 2020, arXiv 2002.05202).

The gradient needs that product alone, and is one buffer like it. Compiled on a CPU where a compiler is found. Knows no
model, and no autograd.

Legend: t rows, f hidden width; `both` (t, 2 f) holds the gate's half, then the other.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from espalier.nn.kernels import rows

Kind = Literal["silu", "gelu"]  # gelu is the tanh form


def gate(both: Tensor, out: Tensor, kind: Kind = "silu") -> None:
    """The gated product without autograd, written to `out` (t, f)."""
    if rows.can_gate(both, out):
        rows.gate(both, out, gelu=kind == "gelu")
        return
    a, b = both.chunk(2, -1)
    out.copy_(_activate(a, kind).mul_(b))


def gate_backward(dout: Tensor, both: Tensor, dboth: Tensor, out: Tensor | None, kind: Kind = "silu") -> None:
    """Write the gradient of `both` to `dboth`, which may be `both` itself, and the product again to `out` if given."""
    if rows.can_gate(both, dout, dboth, *(() if out is None else (out,))):
        rows.gate_backward(dout, both, dboth, out, gelu=kind == "gelu")
        return
    a, b = both.chunk(2, -1)
    active = _activate(a, kind)
    if out is not None:
        out.copy_(active * b)
    da = _activate_backward(dout * b, a, kind)
    at_gate, at_other = dboth.chunk(2, -1)
    at_gate.copy_(da)
    at_other.copy_(active.mul_(dout))


def _activate(x: Tensor, kind: Kind) -> Tensor:
    return functional.silu(x) if kind == "silu" else functional.gelu(x, approximate="tanh")


def _activate_backward(dy: Tensor, x: Tensor, kind: Kind) -> Tensor:
    if kind == "silu":
        return torch.ops.aten.silu_backward(dy, x)  # type: ignore[no-any-return]
    return torch.ops.aten.gelu_backward(dy, x, approximate="tanh")  # type: ignore[no-any-return]
