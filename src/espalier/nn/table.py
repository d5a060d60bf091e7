"""`Table`: an embedding matrix, which may learn and may be the head at once. Knows no layers.

Legend: t ids, c vocabulary, m model width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from espalier.nn.projections import Gradients


class Table:
    """`weight` (c, m), float32 when it learns; `copy` is the same in the type products are computed in."""

    def __init__(self, name: str, weight: Tensor, dtype: torch.dtype, *, learns: bool) -> None:
        self.name, self.weight, self.learns = name, weight, learns
        # Frozen, a copy even of its own type: the original may be a view of a mapped file, all of which it would hold.
        self.copy = weight.detach().to(dtype, copy=not learns)

    def rows(self, ids: Tensor) -> Tensor:
        """The vectors (t, m) of ids (t), as fine as there are."""
        return (self.weight.detach() if self.learns else self.copy)[ids]

    def matrix(self) -> Tensor:
        """The head's matrix (c, m) in the compute type; differentiable when it learns."""
        if not self.learns:
            return self.copy
        return _Rounded.apply(self.weight, self.copy)  # type: ignore[no-any-return, no-untyped-call]

    def learn(self, ids: Tensor, d: Tensor, into: Gradients) -> None:
        """Put the gradient of the vectors looked up, d (t, m), into `into`."""
        into[self.name] = torch.zeros_like(self.weight).index_add_(0, ids, d.to(self.weight.dtype))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what has learnt since."""
        if self.learns and self.copy.data_ptr() != self.weight.data_ptr():
            self.copy.copy_(self.weight)


class _Rounded(torch.autograd.Function):
    """A copy made once a step stands for the weight it was made of."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, copy: Tensor) -> Tensor:
        ctx.dtype = weight.dtype
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].to(ctx.dtype), None
