"""Adapters on a frozen base as a Trainable: the lean forward for a dense Llama, transformers' own code elsewhere.

Both are the same function of the same weights (a test holds them together); the lean one is several times faster on a
CPU. Knows no data and no optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from espalier.nn.adapters import Adapters
from espalier.nn.base import LoadedBase
from espalier.nn.crossentropy import head_cross_entropy
from espalier.nn.llama import LlamaShape, head, hidden_rows
from espalier.nn.lowrank import LowRankProjections
from espalier.tokens.pack import Rectangle
from espalier.train.objectives import likelihood
from espalier.train.trainable import Trainable


def adapted(base: LoadedBase, adapters: Adapters, dtype: torch.dtype) -> Trainable:
    """The faster of the two that fits this base; `dtype` is what products are computed in."""
    shape = lean_shape(base.config)
    if shape is None or adapters.spec.dropout > 0:
        return AdaptedTransformer(base, adapters)
    return AdaptedLlama(base, adapters, shape, dtype)


def lean_shape(config: Any) -> LlamaShape | None:
    """The shape of a config that nn/llama computes exactly; None for any other architecture or option."""
    rope = getattr(config, "rope_parameters", None) or {}
    plain = (
        getattr(config, "model_type", "") == "llama"
        and rope.get("rope_type", "default") == "default"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
    )
    if not plain:
        return None
    return LlamaShape(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        hidden=config.intermediate_size,
        rope_theta=float(rope.get("rope_theta", 10000.0)),
        norm_eps=config.rms_norm_eps,
        tied=config.tie_word_embeddings,
    )


class AdaptedLlama:
    """The lean way: fused frozen products, the adapters' beside them, the head where a loss is asked for."""

    def __init__(self, base: LoadedBase, adapters: Adapters, shape: LlamaShape, dtype: torch.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        self._layers = {f"{name}.weight": (layer.a, layer.b) for name, layer in adapters.layers.items()}
        self._frozen = {  # matrices are cast once; gains stay float32
            name.replace(".base.weight", ".weight"): w.to(dtype) if w.ndim == 2 else w
            for name, w in _frozen(base, adapters).items()
        }
        self._project = LowRankProjections(self._frozen, self._layers, adapters.spec.scale)

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        return {
            f"{name.removesuffix('.weight')}.lora_{part}.weight": tensor
            for name, pair in self._layers.items()
            for part, tensor in zip("AB", pair, strict=True)
        }

    def loss(self, batch: Rectangle, weights: Tensor) -> Tensor:
        ids, rows = torch.from_numpy(batch.ids), torch.from_numpy(batch.rows)
        hidden = hidden_rows(self._frozen, self._shape, ids, rows, self._dtype, self._project)
        matrix = head(self._frozen, self._shape, self._dtype)
        return head_cross_entropy(hidden, matrix, torch.from_numpy(batch.targets), weights)


class AdaptedTransformer:
    """The general way: transformers' own forward with `AdapterLinear` in place; any family it knows."""

    def __init__(self, base: LoadedBase, adapters: Adapters) -> None:
        self._model = base.model
        self._adapters = adapters
        self._model.train(adapters.spec.dropout > 0)

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        return {
            f"{name}.lora_{part}.weight": tensor
            for name, layer in self._adapters.layers.items()
            for part, tensor in zip("AB", (layer.a, layer.b), strict=True)
        }

    def loss(self, batch: Rectangle, weights: Tensor) -> Tensor:
        ids = torch.from_numpy(batch.ids)
        logits = self._model(input_ids=ids, use_cache=False).logits.flatten(0, 1)[torch.from_numpy(batch.rows)]
        logp = torch.log_softmax(logits.float(), -1)
        picked = logp.gather(1, torch.from_numpy(batch.targets)[:, None]).squeeze(1)
        return likelihood(picked, weights)


def _frozen(base: LoadedBase, adapters: Adapters) -> dict[str, Tensor]:
    own = {id(tensor) for tensor in adapters.parameters()}
    return {name: w.detach().float() for name, w in base.model.named_parameters() if id(w) not in own}
