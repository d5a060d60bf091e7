"""One layer of a dense Llama-like decoder, forward and backward written out, for training.

Backward is written by hand so that memory and passes over it can be counted: kept are the two residual sums, the fused
q k v, the attention's answer and the fused gate and up; norms and the gated product are made again. Knows no optimizer
and no data.

Legend: t positions, r rows that go on (all t but in the last layer), m model width, h heads, kv key heads, d head
width, f hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from espalier.nn.attention import Reach, attend, attend_backward, segment_attention
from espalier.nn.gates import gate, gate_backward
from espalier.nn.norms import normalise, normalise_backward
from espalier.nn.projections import Gradients, Projection
from espalier.nn.rotary import Rotation, rotate


@dataclass(frozen=True, slots=True)
class Gain:
    """The weight of an RMSNorm, float32 (n)."""

    name: str
    weight: Tensor
    eps: float
    learns: bool = False

    def norm(self, x: Tensor, out: Tensor) -> Tensor:
        """x / rms(x) * weight over the last dimension, written to `out`, which is given back."""
        normalise(x, self.weight, self.eps, out)
        return out

    def pull(self, dy: Tensor, x: Tensor, dx: Tensor, into: Gradients, *, add: bool = True) -> None:
        """Add the gradient of x to `dx` (or write it there), and put the weight's into `into` when it learns."""
        dweight = torch.zeros_like(self.weight) if self.learns else None
        normalise_backward(dy, x, self.weight, self.eps, dx, dweight, add=add)
        if dweight is not None:
            into[self.name] = dweight


@dataclass(frozen=True, slots=True)
class Scene:
    """What is the same for all layers of a pack."""

    ids: Tensor  # (t)
    segments: npt.NDArray[np.int32]  # (s, 4)
    rotation: Rotation
    rows: Tensor  # (r) which positions go on behind the last attention
    dtype: torch.dtype  # what products are computed in


@dataclass(slots=True)
class Kept:
    """What a layer's backward reads."""

    x: Tensor  # (t, m)
    qkv: Tensor  # (t, h + 2 kv, d), before head norms and rotation
    attended: Tensor  # (t, h, d)
    lse: Tensor | None  # (t, h); None where attention is differentiated by autograd
    middle: Tensor  # (r, m)
    both: Tensor  # (r, 2 f)
    inner: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]  # of qkv, out, gate_up, down


def has_flash(x: Tensor) -> bool:
    """Whether attention is torch's variable-length kernel, which has a backward of its own: on CUDA."""
    return x.is_cuda


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of a layer and its two passes."""

    attention_norm: Gain
    qkv: Projection
    head_norms: tuple[Gain, Gain] | None  # of queries and of keys
    out: Projection
    mlp_norm: Gain
    gate_up: Projection
    down: Projection
    heads: int
    head_width: int
    reach: Reach
    turns: bool  # has rotary positions
    last: bool

    @property
    def learns(self) -> bool:
        gains = (self.attention_norm, self.mlp_norm, *(self.head_norms or ()))
        return any(gain.learns for gain in gains) or any(
            projection.learns for projection in (self.qkv, self.out, self.gate_up, self.down)
        )

    def refresh(self) -> None:
        """Take over what has learnt since."""
        for projection in (self.qkv, self.out, self.gate_up, self.down):
            if projection.learns:
                projection.refresh()

    def forward(self, x: Tensor, scene: Scene) -> tuple[Tensor, Kept]:
        """x (t, m) -> (r, m), and what backward needs."""
        y = self._normed(self.attention_norm, x, scene)
        flat, inner_qkv = self.qkv.forward(y)
        qkv = flat.view(len(flat), -1, self.head_width)
        attended, lse = self._attend(self._heads(qkv), scene)
        going_on, above = attended.flatten(1), x
        if self.last:
            going_on, above = going_on[scene.rows], x[scene.rows]
        middle, inner_out = self.out.forward(going_on, above)
        both, inner_gate_up = self.gate_up.forward(self._normed(self.mlp_norm, middle, scene))
        hidden = torch.empty((len(both), both.shape[1] // 2), dtype=both.dtype, device=both.device)
        gate(both, hidden)
        answer, inner_down = self.down.forward(hidden, middle)
        inner = (inner_qkv, inner_out, inner_gate_up, inner_down)
        return answer, Kept(x, qkv, attended, lse, middle, both, inner)

    def backward(self, d: Tensor, kept: Kept, scene: Scene, into: Gradients, *, further: bool) -> Tensor:
        """The gradient of x (t, m) for that of the answer, d (r, m), which is used up; of no use when not `further`."""
        self._backward_mlp(d, kept, scene, into)
        below = further or self.qkv.learns or self.attention_norm.learns or self._head_norms_learn
        dy = d.to(scene.dtype)
        d_going_on, d_inner = self.out.pull(dy) if below else (None, self.out.pull_inner(dy))
        if self.out.learns:
            going_on = kept.attended.flatten(1)
            self.out.learn(dy, going_on[scene.rows] if self.last else going_on, kept.inner[1], d_inner, into)
        if d_going_on is None:
            return d
        if self.last:  # a row may repeat
            d = d.new_zeros(kept.x.shape).index_add_(0, scene.rows, d)
            whole = d_going_on.new_zeros((len(kept.x), d_going_on.shape[1]))
            d_going_on = whole.index_add_(0, scene.rows, d_going_on)
        d_qkv = self._backward_attention(d_going_on, kept, scene, into).flatten(1)
        on = further or self.attention_norm.learns
        dx, d_inner = self.qkv.pull(d_qkv) if on else (None, self.qkv.pull_inner(d_qkv))
        if self.qkv.learns:
            self.qkv.learn(d_qkv, self._normed(self.attention_norm, kept.x, scene), kept.inner[0], d_inner, into)
        if dx is not None:
            self.attention_norm.pull(dx, kept.x, d, into)
        return d

    @property
    def _head_norms_learn(self) -> bool:
        return any(gain.learns for gain in self.head_norms or ())

    def _backward_mlp(self, d: Tensor, kept: Kept, scene: Scene, into: Gradients) -> None:
        """Turn d, the gradient of the answer, into that of `middle`, in place."""
        dy = d.to(scene.dtype)
        d_hidden, d_inner = self.down.pull(dy)
        hidden = torch.empty_like(d_hidden) if self.down.learns else None
        d_both = kept.both  # in place
        gate_backward(d_hidden, kept.both, d_both, hidden)
        if hidden is not None:
            self.down.learn(dy, hidden, kept.inner[3], d_inner, into)
        d_normed, d_inner = self.gate_up.pull(d_both)
        if self.gate_up.learns:
            self.gate_up.learn(d_both, self._normed(self.mlp_norm, kept.middle, scene), kept.inner[2], d_inner, into)
        self.mlp_norm.pull(d_normed, kept.middle, d, into)

    def _backward_attention(self, d_attended: Tensor, kept: Kept, scene: Scene, into: Gradients) -> Tensor:
        """The gradient of q k v (t, h + 2 kv, d)."""
        d_qkv = torch.empty_like(kept.qkv)
        parts, d_parts = self._heads(kept.qkv), self._split(d_qkv)
        d_attended = d_attended.view(kept.attended.shape)
        if kept.lse is None:
            with torch.enable_grad():
                leaves = [part.detach().requires_grad_() for part in parts]
                again = self._flash(leaves[0], leaves[1], leaves[2], scene)
            for place, gradient in zip(d_parts, torch.autograd.grad(again, leaves, d_attended), strict=True):
                place.copy_(gradient)
        else:
            saved = (*parts, kept.attended, kept.lse)
            attend_backward(d_attended, saved, scene.segments, self.reach, self._rotation(scene), d_parts)
        for gain, dy, x in zip(self.head_norms or (), d_parts, self._split(kept.qkv), strict=False):
            gain.pull(dy, x, dy, into, add=False)
        return d_qkv

    def _attend(self, heads: tuple[Tensor, Tensor, Tensor], scene: Scene) -> tuple[Tensor, Tensor | None]:
        if has_flash(heads[0]):
            return self._flash(*heads, scene), None
        return attend(*heads, scene.segments, self.reach, self._rotation(scene))

    def _flash(self, q: Tensor, k: Tensor, v: Tensor, scene: Scene) -> Tensor:
        """Attention with torch's own kernels, which autograd differentiates."""
        if self.turns:
            q, k = rotate(q, scene.rotation), rotate(k, scene.rotation)
        return segment_attention(q, k, v, scene.segments, self.reach.scale, self.reach.window, self.reach.softcap)

    def _rotation(self, scene: Scene) -> Rotation | None:
        return scene.rotation if self.turns else None

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as the attention reads them, heads normed where the family does."""
        q, k, v = self._split(qkv)
        if self.head_norms is None:
            return q, k, v
        of_q, of_k = self.head_norms
        return of_q.norm(q, torch.empty_like(q)), of_k.norm(k, torch.empty_like(k)), v

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key_heads = (qkv.shape[1] - self.heads) // 2
        first = self.heads + key_heads
        return qkv[:, : self.heads], qkv[:, self.heads : first], qkv[:, first:]

    def _normed(self, gain: Gain, x: Tensor, scene: Scene) -> Tensor:
        return gain.norm(x, torch.empty(x.shape, dtype=scene.dtype, device=x.device))
