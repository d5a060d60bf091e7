"""A lean training forward of the dense Llama family over plain named weights.

Takes the tensors of a `LlamaForCausalLM` under their own names, so what it trains loads in transformers untouched. It
fuses what can be fused (q, k, v into one product, gate and up into another), runs in bf16 over float32 weights, and
computes the last layer and the head only where a loss is asked for. Knows no optimizer and no data; generation is not
its job.

Legend: n rows, t positions, h heads, d head width, m model width, r rows of (n t) that carry loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from espalier.nn.attention import causal_attention


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The numbers of a `LlamaConfig` that the forward needs."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    hidden: int
    rope_theta: float
    norm_eps: float = 1e-5
    tied: bool = True


class _RmsNorm(torch.autograd.Function):
    """y = x / rms(x) * weight, computed in float32, answered in `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, weight, scale = ctx.saved_tensors
        dy = grads[0].to(x.dtype)
        unit = x * scale
        dweight = (dy * unit).sum(0) if ctx.needs_input_grad[1] else None
        dunit = dy * weight
        inner = (dunit * unit).mean(-1, keepdim=True)
        return dunit.addcmul_(unit, inner, value=-1.0).mul_(scale), dweight, None, None


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, -1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        dboth = torch.empty_like(both)
        dgate, dup = dboth.chunk(2, -1)
        torch.mul(grads[0], functional.silu(gate), out=dup)
        dgate.copy_(torch.ops.aten.silu_backward(grads[0] * up, gate))
        return dboth


class _Rotate(torch.autograd.Function):
    """Rotary positions and the move of heads before positions: (n, t, h, d) -> (n, h, t, d), contiguous."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x.transpose(1, 2), cos, sin, x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(grads[0], cos, -sin, grads[0].dtype).transpose(1, 2), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    a, b = x.float().chunk(2, -1)
    out = torch.empty(x.shape, dtype=dtype)
    low, high = out.chunk(2, -1)
    low.copy_((a * cos).addcmul_(b, sin, value=-1.0))
    high.copy_((b * cos).addcmul_(a, sin))
    return out


def rotary(t: int, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, each (t, d/2) float32, as transformers computes them."""
    inverse = 1.0 / theta ** (torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angles = torch.outer(torch.arange(t, dtype=torch.float32), inverse)
    return angles.cos(), angles.sin()


class Project(Protocol):
    """How a layer multiplies: the named projections of x (n t, in), side by side."""

    def __call__(self, x: Tensor, *names: str) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class PlainProjections:
    """Full weights, each cast to the compute type as it is used."""

    weights: Mapping[str, Tensor]
    dtype: torch.dtype

    def __call__(self, x: Tensor, *names: str) -> Tensor:
        parts = [self.weights[name].to(self.dtype) for name in names]
        return x @ (parts[0] if len(parts) == 1 else torch.cat(parts)).t()


def hidden_rows(
    weights: Mapping[str, Tensor],
    shape: LlamaShape,
    ids: Tensor,
    rows: Tensor,
    dtype: torch.dtype,
    project: Project | None = None,
) -> Tensor:
    """The final normed hidden states of `rows` (indices into ids.flatten()), (r, m) in `dtype`; ids (n, t) int64.

    `project` multiplies by the layers' matrices, by default those of `weights`, where embedding and gains are from.
    """
    project = project or PlainProjections(weights, dtype)
    n, t = ids.shape
    cos, sin = rotary(t, shape.head_width, shape.rope_theta)
    x = functional.embedding(ids.flatten(), weights["model.embed_tokens.weight"]).float()
    for layer in range(shape.layers):
        own = f"model.layers.{layer}."
        y = _norm(x, weights[f"{own}input_layernorm.weight"], shape.norm_eps, dtype)
        attended = _attend(project, own, shape, y, (n, t), cos, sin)
        if layer == shape.layers - 1:  # below the head only rows with a loss matter
            attended, x = attended[rows], x[rows]
        x = x + project(attended, f"{own}self_attn.o_proj.weight")
        y = _norm(x, weights[f"{own}post_attention_layernorm.weight"], shape.norm_eps, dtype)
        both = project(y, f"{own}mlp.gate_proj.weight", f"{own}mlp.up_proj.weight")
        x = x + project(_SwiGlu.apply(both), f"{own}mlp.down_proj.weight")  # type: ignore[no-untyped-call]
    return _norm(x, weights["model.norm.weight"], shape.norm_eps, dtype)


def head(weights: Mapping[str, Tensor], shape: LlamaShape, dtype: torch.dtype) -> Tensor:
    """The output matrix, (vocabulary, m)."""
    return weights["model.embed_tokens.weight" if shape.tied else "lm_head.weight"].to(dtype)


def _norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return _RmsNorm.apply(x, weight.float(), eps, dtype)  # type: ignore[no-any-return, no-untyped-call]


def _attend(
    project: Project, own: str, shape: LlamaShape, y: Tensor, size: tuple[int, int], cos: Tensor, sin: Tensor
) -> Tensor:
    """Attention of one layer before its output projection: normed y (n t, m) -> (n t, h d)."""
    n, t = size
    h, kv, d = shape.heads, shape.key_heads, shape.head_width
    names = [f"{own}self_attn.{name}_proj.weight" for name in "qkv"]
    qkv = project(y, *names).view(n, t, h + 2 * kv, d)
    q = _Rotate.apply(qkv[:, :, :h], cos * d**-0.5, sin * d**-0.5)  # type: ignore[no-untyped-call]
    k = _Rotate.apply(qkv[:, :, h : h + kv], cos, sin)  # type: ignore[no-untyped-call]
    v = qkv[:, :, h + kv :].transpose(1, 2)
    if kv != h:
        k, v = k.repeat_interleave(h // kv, 1), v.repeat_interleave(h // kv, 1)
    out = causal_attention(q.reshape(n * h, t, d), k.reshape(n * h, t, d), v.reshape(n * h, t, d))
    return out.view(n, h, t, d).transpose(1, 2).reshape(n * t, h * d)
