"""AdamW and Muon over named tensors, with a state that is plain tensors.

Knows no schedule: the learning rate comes with every step. State is one flat dict, so a checkpoint is a safetensors
file and a resumed run is bit for bit the undisturbed one.

AdamW: Loshchilov and Hutter, arXiv:1711.05101. Muon: Keller Jordan, https://kellerjordan.github.io/posts/muon/
(momentum, then the nearest orthogonal matrix by a quintic Newton-Schulz iteration); matrices of one shape are
orthogonalised as one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Optimizer(Protocol):
    """What the loop needs: `lr_scale` in 0..1 multiplies the optimizer's own peak rate."""

    def step(self, lr_scale: float) -> None: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


class AdamW:
    """Adam with decoupled weight decay, in float32."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self._parameters = dict(parameters)
        self._lr, self._betas, self._eps, self._decay = lr, betas, eps, weight_decay
        self._first = {name: torch.zeros_like(p) for name, p in self._parameters.items()}
        self._second = {name: torch.zeros_like(p) for name, p in self._parameters.items()}
        self._count = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """Apply the gradients now on the parameters; one without a gradient stays as it is."""
        self._count += 1
        count = int(self._count)
        live = [name for name, p in self._parameters.items() if p.grad is not None]
        parameters = [self._parameters[name] for name in live]
        grads = [p.grad for p in parameters if p.grad is not None]
        first, second = [self._first[name] for name in live], [self._second[name] for name in live]
        low, high = self._betas
        rate = self._lr * lr_scale
        torch._foreach_lerp_(first, grads, 1 - low)
        torch._foreach_mul_(second, high)
        torch._foreach_addcmul_(second, grads, grads, 1 - high)
        spread = torch._foreach_sqrt(second)
        torch._foreach_div_(spread, (1 - high**count) ** 0.5)
        torch._foreach_add_(spread, self._eps)
        if self._decay:
            torch._foreach_mul_(parameters, 1 - rate * self._decay)
        torch._foreach_addcdiv_(parameters, first, spread, -rate / (1 - low**count))

    def state(self) -> dict[str, Tensor]:
        """Moments under `first/NAME` and `second/NAME`, and `count`."""
        moments = {f"first/{name}": value for name, value in self._first.items()}
        moments |= {f"second/{name}": value for name, value in self._second.items()}
        return moments | {"count": self._count}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave; raises KeyError when a parameter is missing."""
        for name in self._parameters:
            self._first[name].copy_(state[f"first/{name}"])
            self._second[name].copy_(state[f"second/{name}"])
        self._count.copy_(state["count"])


# Coefficients of the quintic iteration, from the Muon post: steep at zero, so that five rounds lift every singular
# value near one.
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalised(batch: Tensor, rounds: int = 5) -> Tensor:
    """Each matrix of (b, rows, columns) made nearly orthogonal: its singular values end in about 0.7 to 1.2."""
    a, b, c = _QUINTIC
    x = batch.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.float().flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None] * 1.01).bfloat16()
    for _ in range(rounds):
        gram = torch.bmm(x, x.transpose(1, 2))
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return (x.transpose(1, 2) if tall else x).float()


class Muon:
    """Orthogonalised momentum for hidden matrices; embeddings, heads and gains belong to AdamW."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        self._parameters = dict(parameters)
        self._lr, self._momentum, self._decay = lr, momentum, weight_decay
        self._buffer = {name: torch.zeros_like(p) for name, p in self._parameters.items()}
        groups: dict[torch.Size, list[str]] = {}
        for name, p in self._parameters.items():
            groups.setdefault(p.shape, []).append(name)
        self._groups = groups

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """Apply the gradients now on the parameters, matrices of one shape together."""
        rate = self._lr * lr_scale
        for size, names in self._groups.items():
            live = [name for name in names if self._parameters[name].grad is not None]
            if not live:
                continue
            parameters = [self._parameters[name] for name in live]
            grads = [p.grad for p in parameters if p.grad is not None]
            buffers = [self._buffer[name] for name in live]
            torch._foreach_lerp_(buffers, grads, 1 - self._momentum)
            ahead = torch._foreach_lerp(grads, buffers, self._momentum)  # Nesterov
            update = orthogonalised(torch.stack(list(ahead)))
            update.mul_(max(1.0, size[0] / size[1]) ** 0.5)
            if self._decay:
                torch._foreach_mul_(parameters, 1 - rate * self._decay)
            torch._foreach_add_(parameters, list(update.unbind()), alpha=-rate)

    def state(self) -> dict[str, Tensor]:
        """Momentum under `buffer/NAME`."""
        return {f"buffer/{name}": value for name, value in self._buffer.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave; raises KeyError when a parameter is missing."""
        for name in self._parameters:
            self._buffer[name].copy_(state[f"buffer/{name}"])
