"""Language-model head and cross-entropy in one, over supervised rows only, in chunks.

Logits of a chunk live only while its gradient is formed: memory is chunk x vocabulary, whatever the batch. The
gradient is made in the forward pass (as in Liger and Apple's cut-cross-entropy), so that backward is one
multiplication.

Legend: r supervised rows, m model width, c vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Head:
    """How hidden states become logits: scale * (hidden matrix^T + bias), squeezed by softcap * tanh(x / softcap)."""

    matrix: Tensor  # (c, m)
    softcap: float | None = None
    scale: float = 1.0
    bias: Tensor | None = None  # (c,)


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        need_hidden, need_head = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        dhidden = torch.empty_like(hidden) if need_hidden else None
        dhead = torch.zeros(head.shape, dtype=torch.float32) if need_head else None
        loss = torch.zeros((), dtype=torch.float32)
        for start in range(0, hidden.shape[0], CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            h, target, weight = hidden[rows], targets[rows], weights[rows]
            logp = torch.log_softmax((h @ head.t()).float(), -1)  # (r, c)
            loss -= (logp.gather(1, target[:, None]).squeeze(1) * weight).sum()
            if dhidden is None and dhead is None:
                continue
            dz = logp.exp_()
            dz[torch.arange(h.shape[0]), target] -= 1.0
            dz = dz.mul_(weight[:, None]).to(h.dtype)
            if dhidden is not None:
                torch.mm(dz, head, out=dhidden[rows])
            if dhead is not None:
                dhead += dz.t() @ h
        ctx.grads = (dhidden, None if dhead is None else dhead.to(head.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        dhidden, dhead = ctx.grads
        scale = grads[0]
        return _scaled(dhidden, scale), _scaled(dhead, scale), None, None


def head_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """sum over rows of weight * -log softmax(hidden head^T)[target], a float32 scalar.

    hidden (r, m), head (c, m), targets (r) int64, weights (r) float32. Pass weights already divided by the step's
    total weight: then any split of a step into smaller batches sums to the same loss and the same gradient.
    """
    return _HeadCrossEntropy.apply(hidden, head, targets, weights)  # type: ignore[no-any-return, no-untyped-call]


def _scaled(gradient: Tensor | None, scale: Tensor) -> Tensor | None:
    return None if gradient is None else gradient * scale.to(gradient.dtype)
