"""A leaner step for the dense Llama family, beside transformers' own: fewer and larger products, nothing twice.

q, k and v are one product, gate and up another; adapters are added to the fused outputs; residuals are added in the
product; behind the last attention only rows that decide a token go on. The weights stay the model's, rearranged so that
its own projections are views of the fused ones. Knows no request. The engine's probe holds it to transformers' logits.

Shapes: t rows of the step, n rows that decide a token, m model width, h heads, k key heads, d head width, f hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel

from espalier.nn.mixed import AdapterBank, Place
from espalier.nn.slots import SlotCache

_HEAD = "lm_head"


@dataclass(frozen=True, slots=True)
class _Layer:
    """One decoder layer's weights, and the keys of its places in the bank."""

    index: int
    attention_norm: Tensor
    mlp_norm: Tensor
    qkv: Tensor  # ((h + 2k) d, m)
    out: Tensor  # (m, h d)
    gate_up: Tensor  # (2 f, m)
    down: Tensor  # (m, f)

    def key(self, part: str) -> str:
        return f"{self.index}.{part}"


def can_fuse(model: PreTrainedModel) -> bool:
    """Whether `FusedLlama` computes what `model` does: Llama itself, without biases, with the usual gate."""
    config = model.config
    return (
        type(model) is LlamaForCausalLM
        and not (config.attention_bias or config.mlp_bias)
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in ("default", "linear", "llama3", "yarn")
    )


class FusedLlama:
    """Computes steps of a `LlamaForCausalLM` for which `can_fuse` holds."""

    def __init__(self, model: PreTrainedModel, cache: SlotCache, bank: AdapterBank) -> None:
        self._cache, self._bank = cache, bank
        config = model.config
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._eps = config.rms_norm_eps
        self._rotary = model.model.rotary_emb
        self._embedding = model.model.embed_tokens.weight
        self._norm = model.model.norm.weight
        self._head = model.lm_head.weight
        bank.declare(_HEAD, [Place(_HEAD, config.hidden_size, config.vocab_size)])
        self._layers = [_fuse_layer(i, layer, bank) for i, layer in enumerate(model.model.layers)]
        self._scale = float(model.model.layers[0].self_attn.scaling)

    def __call__(self, ids: Tensor, positions: Tensor, deciding: Tensor) -> Tensor:
        """Logits (n, v) of the rows `deciding` of the step; ids, positions (t)."""
        x = self._embedding[ids]  # (t, m)
        cos, sin = self._rotary(x[None], positions[None])
        cos, sin = cos[0, :, None], sin[0, :, None].clone()  # (t, 1, d)
        sin[..., : sin.shape[-1] // 2].neg_()  # the sign of rotate_half
        for layer in self._layers:
            attended = self._attend(layer, x, cos, sin)
            if layer is self._layers[-1]:
                x, attended = x[deciding], attended[deciding]
                self._bank.narrow(deciding)
            x = self._add(x, layer, "out", layer.out, attended)
            y = functional.rms_norm(x, x.shape[-1:], layer.mlp_norm, self._eps)
            gate, up = self._project(layer, "gate_up", layer.gate_up, y).chunk(2, -1)
            x = self._add(x, layer, "down", layer.down, functional.silu(gate).mul_(up))
        y = functional.rms_norm(x, x.shape[-1:], self._norm, self._eps)
        logits: Tensor = y @ self._head.t()
        self._bank.add_to(logits, _HEAD, y)
        return logits

    def _attend(self, layer: _Layer, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        t, h, k = len(x), self._heads, self._key_heads
        y = functional.rms_norm(x, x.shape[-1:], layer.attention_norm, self._eps)
        qkv = self._project(layer, "qkv", layer.qkv, y).view(t, h + 2 * k, -1)
        qk = qkv[:, : h + k]
        swapped = qk.reshape(t, h + k, 2, -1).flip(-2).view(qk.shape)
        qk = (qk * cos).addcmul_(swapped, sin)
        return self._cache.attend(layer.index, qk[:, :h], qk[:, h:], qkv[:, h + k :], self._scale).view(t, -1)

    def _project(self, layer: _Layer, part: str, weight: Tensor, x: Tensor) -> Tensor:
        y = x @ weight.t()
        self._bank.add_to(y, layer.key(part), x)
        return y

    def _add(self, residual: Tensor, layer: _Layer, part: str, weight: Tensor, x: Tensor) -> Tensor:
        key = layer.key(part)
        if self._bank.scales(key):
            y = x @ weight.t()
            self._bank.add_to(y, key, x)
            return y.add_(residual)
        y = torch.addmm(residual, x, weight.t())
        self._bank.add_to(y, key, x)
        return y


def _fuse_layer(index: int, layer: nn.Module, bank: AdapterBank) -> _Layer:
    parts = {
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "out": ("self_attn.o_proj",),
        "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
        "down": ("mlp.down_proj",),
    }
    fused = {part: _fuse([layer.get_submodule(name) for name in names]) for part, names in parts.items()}
    found = _Layer(
        index,
        layer.get_submodule("input_layernorm").get_parameter("weight"),
        layer.get_submodule("post_attention_layernorm").get_parameter("weight"),
        fused["qkv"],
        fused["out"],
        fused["gate_up"],
        fused["down"],
    )
    for part, names in parts.items():
        places = []
        for name in names:
            rows, columns = layer.get_submodule(name).get_parameter("weight").shape
            places.append(Place(f"model.layers.{index}.{name}", columns, rows))
        bank.declare(found.key(part), places)
    return found


def _fuse(modules: list[nn.Module]) -> Tensor:
    """The weights under one another; each module keeps its own as a view of the whole, so nothing is held twice."""
    weights = [module.get_parameter("weight") for module in modules]
    if len(weights) == 1:
        return weights[0].detach()
    whole = torch.cat([weight.detach() for weight in weights])
    for weight, view in zip(weights, torch.split(whole, [len(weight) for weight in weights]), strict=True):
        weight.data = view
    return whole
