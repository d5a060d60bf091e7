"""Rotary positions: the angles of a pack's positions, and the rotation of heads by them.

Knows tables and heads only: how a family scales its angles is decided by whoever makes the table. The pairing is the
one of transformers' `rotate_half`: number i of a head turns with number i + w/2 (Su et al. 2021, arXiv 2104.09864).

Legend: t positions, h heads, d head width, w <= d the numbers of a head that turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espalier.nn.kernels import rows


@dataclass(frozen=True, slots=True)
class Rotation:
    """cos and sin of each position, each (t, w/2) float32, contiguous; the first w numbers of a head turn."""

    cos: Tensor
    sin: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "cos", self.cos.contiguous())
        object.__setattr__(self, "sin", self.sin.contiguous())

    @property
    def width(self) -> int:
        """w"""
        return 2 * self.cos.shape[-1]


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turn(x, Rotation(cos, sin))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return turn(grads[0], Rotation(cos, sin), back=True), None, None


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """The heads x (t, h, d) turned to their positions, in x's type; computed in float32 (float64 stays)."""
    return _Rotate.apply(x, rotation.cos, rotation.sin)  # type: ignore[no-any-return, no-untyped-call]


def turn(x: Tensor, rotation: Rotation, *, back: bool = False) -> Tensor:
    """`rotate` without autograd; `back` turns the other way, which is the gradient."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if rows.can_rotate(x, rotation.cos):
        rows.rotate(x, rotation.cos, rotation.sin, out, back=back)
        return out
    half = rotation.width // 2
    cos, sin = rotation.cos[:, None], rotation.sin[:, None]
    a, b = _wide(x[..., :half]), _wide(x[..., half : 2 * half])
    if back:
        sin = -sin
    out[..., :half] = (a * cos).addcmul_(b, sin.to(b.dtype), value=-1.0)
    out[..., half : 2 * half] = (b * cos).addcmul_(a, sin.to(a.dtype))
    out[..., 2 * half :] = x[..., 2 * half :]
    return out


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
