"""Language-model head and log-probabilities in one, over the rows that need them only, in chunks.

Logits of a chunk live only while they are used: memory is chunk x vocabulary, whatever the batch. Where the loss is a
weighted cross-entropy the gradient is made in the forward pass (as in Liger and Apple's cut-cross-entropy), so that
backward is one multiplication; where it is any function of log-probabilities, backward makes the logits again.

Legend: r rows, m model width, c classes (the vocabulary), k targets of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espalier.nn.kernels import logits as compiled

CHUNK_ROWS = 1024
CHUNK_BYTES = (
    32 * 2**20
)  # of logits at a time, at 49,152 classes in bf16 some 300 rows: products are no faster with more


@dataclass(frozen=True, slots=True)
class Head:
    """logits = cap(scale (hidden matrix^T + bias)), where cap(z) is softcap tanh(z / softcap), or z without one."""

    matrix: Tensor  # (c, m)
    softcap: float | None = None
    scale: float = 1.0
    bias: Tensor | None = None  # (c,)


def head_cross_entropy(hidden: Tensor, head: Head | Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """sum over rows of weight * -log softmax(logits)[target], a float32 scalar.

    hidden (r, m), targets (r) int64, weights (r) float32; a bare matrix is a head of nothing else. Pass weights already
    divided by the step's total weight: then any split of a step into smaller batches sums to the same loss and the
    same gradient.
    """
    head = _as_head(head)
    return _HeadCrossEntropy.apply(hidden, head.matrix, head.bias, head.softcap, head.scale, targets, weights)  # type: ignore[no-any-return, no-untyped-call]


def head_logp(hidden: Tensor, head: Head | Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits) at `targets`, float32 in their shape: (r) or, for several of each row, (r, k) int64."""
    head = _as_head(head)
    return _HeadLogp.apply(hidden, head.matrix, head.bias, head.softcap, head.scale, targets)  # type: ignore[no-any-return, no-untyped-call]


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        softcap: float | None,
        scale: float,
        targets: Tensor,
        weights: Tensor,
    ) -> Tensor:
        head = Head(matrix, softcap, scale, bias)
        gradients = _Gradients(hidden, head, ctx.needs_input_grad[:3])
        logp = _pick_chunks(hidden, head, targets[:, None], weights[:, None], gradients)
        ctx.grads = gradients.finish()
        return -(logp[:, 0] * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if part is None else part * grads[0].to(part.dtype) for part in ctx.grads), None, None, None, None


class _HeadLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        softcap: float | None,
        scale: float,
        targets: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(hidden, matrix, bias, targets)
        ctx.softcap, ctx.scale = softcap, scale
        logp = _pick_chunks(hidden, Head(matrix, softcap, scale, bias), _wide(targets), None, None)
        return logp.view(targets.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, matrix, bias, targets = ctx.saved_tensors
        head = Head(matrix, ctx.softcap, ctx.scale, bias)
        gradients = _Gradients(hidden, head, ctx.needs_input_grad[:3])
        _pick_chunks(hidden, head, _wide(targets), _wide(-grads[0]), gradients)
        return *gradients.finish(), None, None, None


class _Gradients:
    """The gradients of hidden, matrix and bias, chunk by chunk; of those only that are asked for."""

    def __init__(self, hidden: Tensor, head: Head, needs: tuple[bool, bool, bool]) -> None:
        self._head, self.wanted = head, any(needs)
        self._hidden = torch.empty_like(hidden) if needs[0] else None
        work = _work(hidden)
        self._matrix = torch.zeros(head.matrix.shape, dtype=work, device=hidden.device) if needs[1] else None
        self._bias = torch.zeros(head.matrix.shape[0], dtype=work, device=hidden.device) if needs[2] else None

    def add(self, rows: slice, hidden: Tensor, dz: Tensor | None) -> None:
        if dz is None:
            return
        if self._hidden is not None:
            torch.mm(dz, self._head.matrix, out=self._hidden[rows])
        if self._matrix is not None:
            self._matrix += dz.t() @ hidden
        if self._bias is not None:
            self._bias += dz.sum(0, dtype=self._bias.dtype)

    def finish(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        matrix, bias = self._head.matrix, self._head.bias
        return (
            self._hidden,
            None if self._matrix is None else self._matrix.to(matrix.dtype),
            None if self._bias is None or bias is None else self._bias.to(bias.dtype),
        )


def _pick_chunks(
    hidden: Tensor, head: Head, targets: Tensor, weights: Tensor | None, gradients: _Gradients | None
) -> Tensor:
    """Log-probabilities (r, k) at targets (r, k); the gradients of sum(weights * -logp) if asked for."""
    classes = head.matrix.shape[0]
    if not targets.is_cuda and targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise IndexError(f"a target is none of the head's {classes} classes")
    logp = torch.empty(targets.shape, dtype=_work(hidden), device=hidden.device)
    size = min(max(CHUNK_BYTES // (classes * hidden.element_size()), 64), CHUNK_ROWS, len(hidden))
    logits = torch.empty((size, classes), dtype=hidden.dtype, device=hidden.device)
    used = (
        weights.to(logp.dtype).contiguous()
        if gradients is not None and gradients.wanted and weights is not None
        else None
    )
    for start in range(0, len(hidden), max(size, 1)):
        rows = slice(start, min(start + size, len(hidden)))
        z = torch.mm(hidden[rows], head.matrix.t(), out=logits[: rows.stop - start])
        weight = None if used is None else used[rows]
        dz = _pick(z, head, targets[rows].contiguous(), weight, logp[rows])
        if gradients is not None and dz is not None:
            gradients.add(rows, hidden[rows], dz)
    return logp


def _pick(z: Tensor, head: Head, targets: Tensor, weights: Tensor | None, logp: Tensor) -> Tensor | None:
    """Log-probabilities at targets (r, k) of the plain products z (r, c), written to `logp` (r, k); z is used up.

    With weights (r, k) the gradient of sum(weights * -logp) by z, in z's type.
    """
    if compiled.can_pick(z):
        bias = None if head.bias is None else head.bias.contiguous().float()
        compiled.pick(z, targets, weights, logp, bias=bias, softcap=head.softcap, scale=head.scale)
        return None if weights is None else z
    wide = z.to(logp.dtype)
    slope = None
    if head.bias is not None:
        wide = wide + head.bias
    if head.scale != 1.0:
        wide = wide * head.scale
    if head.softcap is not None:
        wide = torch.tanh(wide / head.softcap)
        slope = 1.0 - wide.square()
        wide = wide * head.softcap
    normed = torch.log_softmax(wide, -1)
    logp.copy_(normed.gather(1, targets))
    if weights is None:
        return None
    dz = normed.exp_().mul_(weights.sum(1, keepdim=True)).scatter_add_(1, targets, -weights)
    if slope is not None:
        dz.mul_(slope)
    return dz.mul_(head.scale).to(z.dtype)


def _wide(x: Tensor) -> Tensor:
    """(r) as (r, 1)."""
    return x if x.ndim == 2 else x[:, None]


def _as_head(head: Head | Tensor) -> Head:
    return Head(head) if isinstance(head, Tensor) else head


def _work(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32
