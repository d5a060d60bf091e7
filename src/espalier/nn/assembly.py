"""Lean decoders out of a model's weights: all of them learning, or frozen with adapters beside.

Knows the names transformers gives the weights of the families `nn/shape` knows; no file, no training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espalier.nn.adapters import Adapters
from espalier.nn.attention import Reach
from espalier.nn.base import LoadedBase
from espalier.nn.decoder import LeanDecoder
from espalier.nn.layer import Gain, Layer
from espalier.nn.projections import LowRank, Part, Projection
from espalier.nn.shape import LeanShape
from espalier.nn.table import Table

_EMBEDDING, _HEAD, _FINAL_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
# What is one product each.
_GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)


def dense_decoder(
    weights: Mapping[str, Tensor],
    shape: LeanShape,
    dtype: torch.dtype,
    *,
    learning: Collection[str] | None = None,
    recompute: bool = False,
) -> LeanDecoder:
    """Full training: the tensors named in `learning` learn (None: all), in float32; products are computed in `dtype`.

    The float32 tensors given are trained themselves; of one in another type a float32 copy is, which `parameters` has.
    """
    names = list(weights) if learning is None else [name for name in weights if name in learning]
    masters = {name: _master(weights[name]) for name in names}
    stand = _Stand(dict(weights) | masters, shape, dtype, frozenset(names), {}, given_up=False)
    return _assemble(stand, masters, torch.float32, recompute)


def adapted_decoder(
    base: LoadedBase, adapters: Adapters, shape: LeanShape, dtype: torch.dtype, *, recompute: bool = False
) -> LeanDecoder:
    """Frozen weights in `dtype`, with `adapters` beside, which learn in float32.

    The weights of `base.model` become views of those laid out here, in `dtype`, so that nothing is held twice; the
    model goes on working.
    """
    pairs = {name: LowRank(layer.a, layer.b, layer.scale) for name, layer in adapters.layers.items()}
    own = {id(tensor) for tensor in adapters.parameters()}
    held = {
        name.replace(".base.weight", ".weight").replace(".base.bias", ".bias"): tensor
        for name, tensor in base.model.named_parameters()
        if id(tensor) not in own
    }
    stand = _Stand(held, shape, dtype, frozenset(), pairs, given_up=True)
    return _assemble(stand, adapters.named_parameters(), dtype, recompute)


def _master(weight: Tensor) -> Tensor:
    """The float32 tensor that learns: the weight itself where it has the type."""
    return (weight if weight.dtype == torch.float32 else weight.detach().float()).requires_grad_()


def is_covered(adapters: Adapters, shape: LeanShape) -> bool:
    """Whether every adapter stands on a layer the lean decoder computes (it does not adapt the head)."""
    places = {f"model.layers.{index}.{part}" for index in range(shape.layers) for group in _GROUPS for part in group}
    return adapters.layers.keys() <= places


@dataclass(frozen=True, slots=True)
class _Stand:
    """A model's tensors by name, and what of them learns."""

    weights: Mapping[str, Tensor]
    shape: LeanShape
    dtype: torch.dtype
    learning: frozenset[str]
    pairs: Mapping[str, LowRank]
    given_up: bool  # whether frozen tensors may be moved into what is laid out here

    def layer(self, index: int) -> Layer:
        shape, own = self.shape, f"model.layers.{index}"
        qkv, out, gate_up, down = (self._projection(own, group) for group in _GROUPS)
        head_norms = None
        if shape.head_norms:
            head_norms = (self.gain(f"{own}.self_attn.q_norm.weight"), self.gain(f"{own}.self_attn.k_norm.weight"))
        return Layer(
            attention_norm=self.gain(f"{own}.input_layernorm.weight"),
            qkv=qkv,
            head_norms=head_norms,
            out=out,
            mlp_norm=self.gain(f"{own}.post_attention_layernorm.weight"),
            gate_up=gate_up,
            down=down,
            heads=shape.heads,
            head_width=shape.head_width,
            reach=Reach(shape.head_width**-0.5, shape.window(index)),
            turns=index not in shape.still,
            last=index == shape.layers - 1,
        )

    def gain(self, name: str) -> Gain:
        weight = self.weights[name]
        learns = name in self.learning
        frozen = weight.detach().to(torch.float32, copy=True)
        if not learns:
            self._give_up(name, weight.detach().to(self.dtype, copy=True))
        return Gain(name, weight.detach() if learns else frozen, self.shape.norm_eps, learns)

    def table(self, name: str) -> Table:
        table = Table(name, self.weights[name], self.dtype, learns=name in self.learning)
        if not table.learns:
            self._give_up(name, table.copy)
        return table

    def _projection(self, own: str, group: tuple[str, ...]) -> Projection:
        parts = []
        for part in group:
            name = f"{own}.{part}"
            learning = frozenset(kind for kind in ("weight", "bias") if f"{name}.{kind}" in self.learning)
            weight, bias = self.weights[f"{name}.weight"].detach(), self.weights.get(f"{name}.bias")
            parts.append(Part(name, weight, None if bias is None else bias.detach(), learning, self.pairs.get(name)))
        projection = Projection(parts, self.dtype)
        for name, view in projection.frozen().items():
            self._give_up(name, view)
        return projection

    def _give_up(self, name: str, view: Tensor) -> None:
        """Let the model hold `view` in place of its own tensor."""
        if self.given_up or (self.weights[name].dtype == view.dtype and isinstance(self.weights[name], nn.Parameter)):
            self.weights[name].data = view


def _assemble(stand: _Stand, parameters: Mapping[str, Tensor], stream: torch.dtype, recompute: bool) -> LeanDecoder:
    layers = tuple(stand.layer(index) for index in range(stand.shape.layers))
    table = stand.table(_EMBEDDING)
    head = table if stand.shape.tied else stand.table(_HEAD)
    final_norm = stand.gain(_FINAL_NORM)
    return LeanDecoder(layers, table, head, final_norm, stand.shape, parameters, stream=stream, recompute=recompute)
