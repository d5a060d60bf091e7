"""`Projection`: the linear layers that read one input, as one product, with all that may learn beside or in them.

A part is one linear layer of the model (q, k or v; gate or up). Its weights are frozen or learn as float32 tensors; a
LoRA may stand on it. The parts' weights lie under one another in one matrix in the compute type, so that a product is
one; what learns is copied into it once a step, not once a product. Knows no architecture.

Legend: t rows, i in, o out (all parts together), r rank, R ranks of all parts together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

Gradients = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class LowRank:
    """A LoRA on a part: scale * up @ down is added to its weight. Both learn, in float32."""

    down: Tensor  # A (r, i)
    up: Tensor  # B (o, r)
    scale: float


@dataclass(frozen=True, slots=True)
class Part:
    """One linear layer, by its name in the model."""

    name: str
    weight: Tensor  # (o, i)
    bias: Tensor | None = None
    learning: frozenset[str] = frozenset()  # of "weight" and "bias"
    low_rank: LowRank | None = None


@dataclass(frozen=True, slots=True)
class _Beside:
    """A LoRA in the compute type, and where its part lies in the product and its ranks among all ranks."""

    down_name: str
    up_name: str
    pair: LowRank
    outputs: slice
    ranks: slice
    up: Tensor  # B (o, r)


class Projection:
    """y = x W^T + b, and what each part's LoRA adds in its own columns."""

    def __init__(self, parts: Sequence[Part], dtype: torch.dtype) -> None:
        first = parts[0].weight
        self._spans = _spans(parts)
        self.learns = any(part.learning or part.low_rank for part in parts)
        self.matrix = torch.empty(
            (sum(len(part.weight) for part in parts), first.shape[1]), dtype=dtype, device=first.device
        )
        biased = any(part.bias is not None for part in parts)
        self.bias = torch.zeros(len(self.matrix), dtype=dtype, device=first.device) if biased else None
        adapted = [part.low_rank for part in parts if part.low_rank is not None]
        ranks = sum(len(pair.down) for pair in adapted)
        self._down = torch.empty((ranks, first.shape[1]), dtype=dtype, device=first.device)  # scale * A (R, i)
        scales = [pair.scale for pair in adapted for _ in pair.down]
        self._scales = torch.tensor(scales, dtype=torch.float32, device=first.device)[:, None]  # (R, 1)
        self._beside: list[_Beside] = []
        self.parts = tuple(self._lay(part, rows) for part, rows in zip(parts, self._spans, strict=True))
        self._learning = [(part, rows) for part, rows in zip(self.parts, self._spans, strict=True) if part.learning]
        self.refresh()

    def frozen(self) -> dict[str, Tensor]:
        """What does not learn, by name, as views of what products are computed with."""
        found: dict[str, Tensor] = {}
        for part in self.parts:
            kinds = {"weight": part.weight, "bias": part.bias}
            found |= {
                f"{part.name}.{kind}": tensor
                for kind, tensor in kinds.items()
                if tensor is not None and kind not in part.learning
            }
        return found

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what has learnt since."""
        for part, rows in self._learning:
            if "weight" in part.learning:
                self.matrix[rows].copy_(part.weight)
            if self.bias is not None and "bias" in part.learning and part.bias is not None:
                self.bias[rows].copy_(part.bias)
        for beside in self._beside:
            self._down[beside.ranks].copy_(beside.pair.down * beside.pair.scale)
            beside.up.copy_(beside.pair.up)

    def forward(self, x: Tensor, onto: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """y (t, o) of x (t, i), `onto` (t, o) added; and scale x A^T (t, R) for `learn`, None without LoRA."""
        finer = onto is not None and onto.dtype != x.dtype  # a residual stream finer than the products
        y = self._product(x, None if finer else onto)
        inner = x @ self._down.t() if self._beside else None
        if inner is not None:
            for beside in self._beside:
                y[:, beside.outputs].addmm_(inner[:, beside.ranks], beside.up.t())
        return (onto + y if finer else y), inner  # type: ignore[operator]

    def pull(self, dy: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradient of x (t, i), and of x A^T (t, R), None without LoRA."""
        dx, d_inner = dy @ self.matrix, self.pull_inner(dy)
        return (dx if d_inner is None else dx.addmm_(d_inner, self._down)), d_inner

    def pull_inner(self, dy: Tensor) -> Tensor | None:
        """The gradient of x A^T alone, for when nothing below learns."""
        if not self._beside:
            return None
        d_inner = torch.empty((len(dy), len(self._down)), dtype=dy.dtype, device=dy.device)
        for beside in self._beside:
            torch.mm(dy[:, beside.outputs], beside.up, out=d_inner[:, beside.ranks])
        return d_inner

    def learn(self, dy: Tensor, x: Tensor, inner: Tensor | None, d_inner: Tensor | None, into: Gradients) -> None:
        """Put the gradients of what learns here into `into` by name; autograd brings them to float32."""
        for part, rows in self._learning:
            if "weight" in part.learning:
                into[f"{part.name}.weight"] = dy[:, rows].t() @ x
            if "bias" in part.learning:
                into[f"{part.name}.bias"] = dy[:, rows].sum(0, dtype=torch.float32)
        if inner is None or d_inner is None:
            return
        d_down = (d_inner.t() @ x) * self._scales
        for beside in self._beside:
            into[beside.down_name] = d_down[beside.ranks]
            into[beside.up_name] = dy[:, beside.outputs].t() @ inner[:, beside.ranks]

    def _product(self, x: Tensor, onto: Tensor | None) -> Tensor:
        if onto is None:
            return x @ self.matrix.t() if self.bias is None else torch.addmm(self.bias, x, self.matrix.t())
        y = torch.addmm(onto, x, self.matrix.t())
        return y if self.bias is None else y.add_(self.bias)

    @torch.no_grad()
    def _lay(self, part: Part, rows: slice) -> Part:
        """Copy a part to its place; the part again, with views for what is frozen, so that nothing is held twice."""
        weight, bias = self.matrix[rows].copy_(part.weight), None
        if self.bias is not None and part.bias is not None:
            bias = self.bias[rows].copy_(part.bias)
        if part.low_rank is not None:
            start = self._beside[-1].ranks.stop if self._beside else 0
            ranks = slice(start, start + len(part.low_rank.down))
            up = torch.empty(part.low_rank.up.shape, dtype=self.matrix.dtype, device=self.matrix.device)
            down_name, up_name = f"{part.name}.lora_A.weight", f"{part.name}.lora_B.weight"
            self._beside.append(_Beside(down_name, up_name, part.low_rank, rows, ranks, up))
        return replace(
            part,
            weight=part.weight if "weight" in part.learning else weight,
            bias=part.bias if "bias" in part.learning else bias,
        )


def _spans(parts: Sequence[Part]) -> list[slice]:
    ends = list(accumulate(len(part.weight) for part in parts))
    return [slice(end - len(part.weight), end) for end, part in zip(ends, parts, strict=True)]
