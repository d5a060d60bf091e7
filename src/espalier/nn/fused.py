"""A leaner step for dense Llama-like families, beside transformers' own: fewer and larger products, nothing twice.

q, k and v are one product, gate and up another; adapters are added to the fused outputs; behind the last attention only
rows that decide a token go on. Where there is a compiler and a CPU the whole step is one call (nn/kernels/step), else
it is written here in plain torch. The weights stay the model's, dense or in int8 (nn/quantized), rearranged so that its
own projections are views of the fused ones. Knows no request. The engine's probe holds it to transformers' logits.

Shapes: t rows of the step, n rows that decide a token, m model width, h heads, k key heads, d head width, f hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    SmolLM3ForCausalLM,
)

from espalier.nn.adapterpack import pack_adapter
from espalier.nn.kernels.step import LayerWeights, ModelWeights, PlaceWeights, StepKernel, StepRows, can_step
from espalier.nn.mixed import AdapterBank, Place
from espalier.nn.quantized import Int8Matrix, QuantizedLinear
from espalier.nn.rotary import Rotation, turn
from espalier.nn.shape import LeanShape, lean_shape
from espalier.nn.slots import Kind, SlotCache

_HEAD = "lm_head"
_TYPES = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, SmolLM3ForCausalLM)
_PARTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


@dataclass(frozen=True, slots=True)
class _Product:
    """Layers of the model that read one input: their key in the bank, weight (o, i), bias (o)."""

    key: str
    weight: Tensor | Int8Matrix
    bias: Tensor | None
    parts: tuple[int, ...]

    def of(self, x: Tensor) -> Tensor:
        """x (t, i) times the transposed weight, (t, o)."""
        if isinstance(self.weight, Tensor):
            return x @ self.weight.t()
        few = self.weight.multiply_few(x)
        return x @ self.weight.dequantise(x.dtype).t() if few is None else few

    def for_kernel(self) -> PlaceWeights:
        bias = None if self.bias is None else self.bias.detach().float()
        if isinstance(self.weight, Tensor):
            return PlaceWeights(self.weight, bias, self.parts)
        return PlaceWeights(self.weight.codes, bias, self.parts, self.weight.scales)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One decoder layer's weights."""

    index: int
    attention_norm: Tensor
    mlp_norm: Tensor
    head_norms: tuple[Tensor, Tensor] | None  # of queries and of keys
    qkv: _Product
    out: _Product
    gate_up: _Product
    down: _Product
    turns: bool
    looks_back: bool  # only so far as the model's window


def can_fuse(model: PreTrainedModel) -> bool:
    """Whether `FusedDecoder` computes what `model` does: a family it knows, over plain linear layers or int8 ones."""
    return (
        type(model) in _TYPES
        and lean_shape(model.config) is not None
        and all(
            _can_join([layer.get_submodule(name) for name in names])
            for layer in model.model.layers
            for names in _PARTS.values()
        )
        and type(model.lm_head) is nn.Linear
    )


def _can_join(modules: Sequence[nn.Module]) -> bool:
    kinds = {type(module) for module in modules}
    return kinds == {nn.Linear} or (
        kinds == {QuantizedLinear} and all(isinstance(module.weight, Int8Matrix) for module in modules)
    )


class FusedDecoder:
    """Computes steps of a model for which `can_fuse` holds; `threads` at 0 are as many as torch uses."""

    def __init__(self, model: PreTrainedModel, cache: SlotCache, bank: AdapterBank) -> None:
        self._cache, self._bank, self._config = cache, bank, model.config
        shape = lean_shape(model.config)
        if shape is None:
            raise TypeError(f"{type(model).__name__} has another shape: ask can_fuse first")
        self._shape: LeanShape = shape
        self._embedding, self._norm = model.model.embed_tokens.weight, model.model.norm.weight
        head = model.lm_head
        self._head = _Product(_HEAD, head.weight.detach(), head.bias, (len(head.weight),))
        places = [_places_of(i, names) for i in range(shape.layers) for names in _PARTS.values()]
        declared = [[_measure(model, name) for name in names] for names in [*places, [_HEAD]]]
        self._layers = [_fuse_layer(i, layer, shape) for i, layer in enumerate(model.model.layers)]
        keys = [product.key for layer in self._layers for product in _products_of(layer)]
        for key, place in zip([*keys, _HEAD], declared, strict=True):
            bank.declare(key, place)
        self._scale = float(model.model.layers[0].self_attn.scaling)
        self._seen: list[int | None] = []  # windows that the kernel knows
        self._kernel: StepKernel | None = None
        if can_step(self._embedding):
            self._kernel = StepKernel(self._weights())
            bank.pack_each(lambda weights: pack_adapter(weights, declared, cache.dtype))

    @property
    def compiled(self) -> bool:
        """Whether steps are one call: rows may then stand in any order, and slots anywhere."""
        return self._kernel is not None

    def __call__(self, ids: Tensor, positions: Tensor, deciding: Tensor) -> Tensor:
        """Logits (n, v) of the rows `deciding` (ascending) of the step; ids, positions (t)."""
        if self._kernel is not None:
            return self._run(self._kernel, ids, positions, deciding)
        kinds = [Kind(window) if window else Kind() for window in self._windows()]
        x = self._embedding[ids]  # (t, m)
        rotation = self._shape.rotation(positions)
        for layer in self._layers:
            attended = self._attend(layer, x, rotation, kinds[layer.index])
            if layer is self._layers[-1]:
                x, attended = x[deciding], attended[deciding]
                self._bank.narrow(deciding)
            x = x + self._project(layer.out, attended)
            y = self._normed(x, layer.mlp_norm)
            gate, up = self._project(layer.gate_up, y).chunk(2, -1)
            x = x + self._project(layer.down, functional.silu(gate).mul_(up))
        return self._project(self._head, self._normed(x, self._norm))

    def _run(self, kernel: StepKernel, ids: Tensor, positions: Tensor, deciding: Tensor) -> Tensor:
        step = self._cache.step
        windows = self._windows()
        if windows != self._seen:
            kernel.look_back(windows)
            self._seen = windows
        slots = step.slots + [span.slot for span in step.spans for _ in range(span.begin, span.end)]
        furthest = max([*step.positions, *(span.first + span.end - span.begin - 1 for span in step.spans)], default=0)
        rows = StepRows(
            ids.contiguous(), positions, torch.tensor(slots, dtype=torch.int64), deciding, furthest + 1,
            self._bank.chosen, len(step.slots), step.shared,
        )  # fmt: skip
        return kernel.run(rows, torch.get_num_threads())

    def _attend(self, layer: _Layer, x: Tensor, rotation: Rotation, kind: Kind) -> Tensor:
        h, k, d = self._shape.heads, self._shape.key_heads, self._shape.head_width
        qkv = self._project(layer.qkv, self._normed(x, layer.attention_norm)).view(len(x), h + 2 * k, d)
        q, key, v = torch.split(qkv, [h, k, k], 1)
        if layer.head_norms is not None:
            q, key = self._normed(q, layer.head_norms[0]), self._normed(key, layer.head_norms[1])
        if layer.turns:
            q, key = turn(q, rotation), turn(key, rotation)
        return self._cache.attend(layer.index, q, key, v, self._scale, kind).reshape(len(x), -1)

    def _project(self, product: _Product, x: Tensor) -> Tensor:
        y = product.of(x)
        self._bank.add_to(y, product.key, x)
        return y if product.bias is None else y.add_(product.bias)

    def _normed(self, x: Tensor, gain: Tensor) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], gain, self._shape.norm_eps)

    def _windows(self) -> list[int | None]:
        """By layer, as the model's configuration says it now: the probe looks with a shorter one."""
        window = getattr(self._config, "sliding_window", None)
        return [window if layer.looks_back else None for layer in self._layers]

    def _weights(self) -> ModelWeights:
        positions = torch.arange(self._cache.context_tokens)
        rotation = self._shape.rotation(positions)
        layers = []
        for layer in self._layers:
            qkv, out, gate_up, down = (product.for_kernel() for product in _products_of(layer))
            gains = None if layer.head_norms is None else (_plain(layer.head_norms[0]), _plain(layer.head_norms[1]))
            layers.append(
                LayerWeights(
                    (qkv, out, gate_up, down),
                    _plain(layer.attention_norm),
                    _plain(layer.mlp_norm),
                    gains,
                    self._cache.keys[layer.index],
                    self._cache.values[layer.index],
                    layer.turns,
                )
            )
        return ModelWeights(
            tuple(layers), self._embedding.detach(), self._head.for_kernel(), _plain(self._norm), rotation.cos,
            rotation.sin, self._shape.heads, self._shape.norm_eps, self._scale,
        )  # fmt: skip


def _plain(gain: Tensor) -> Tensor:
    return gain.detach().float().contiguous()


def _products_of(layer: _Layer) -> Sequence[_Product]:
    return layer.qkv, layer.out, layer.gate_up, layer.down


def _places_of(index: int, names: Sequence[str]) -> list[str]:
    return [f"model.layers.{index}.{name}" for name in names]


def _measure(model: nn.Module, name: str) -> Place:
    rows, columns = _weight_of(model.get_submodule(name)).shape
    return Place(name, columns, rows)


def _fuse_layer(index: int, layer: nn.Module, shape: LeanShape) -> _Layer:
    products = {
        part: _fuse(f"{index}.{part}", [layer.get_submodule(name) for name in names]) for part, names in _PARTS.items()
    }
    head_norms = None
    if shape.head_norms:
        head_norms = (
            layer.get_parameter("self_attn.q_norm.weight").detach(),
            layer.get_parameter("self_attn.k_norm.weight").detach(),
        )
    return _Layer(
        index,
        layer.get_parameter("input_layernorm.weight").detach(),
        layer.get_parameter("post_attention_layernorm.weight").detach(),
        head_norms,
        turns=index not in shape.still,
        looks_back=shape.window(index) is not None,
        **products,
    )


def _fuse(key: str, modules: Sequence[nn.Module]) -> _Product:
    """The weights under one another; each module keeps its own as a view of the whole, so nothing is held twice."""
    weights = [_weight_of(module) for module in modules]
    parts = tuple(weight.shape[0] for weight in weights)
    biases = [getattr(module, "bias", None) for module in modules]
    known = next((one for one in biases if one is not None), None)
    bias = None
    if known is not None:
        filled = zip(biases, parts, strict=True)
        bias = torch.cat([known.new_zeros(count) if one is None else one.detach() for one, count in filled])
    return _Product(key, _join(weights), bias, parts)


def _join(weights: Sequence[Tensor | Int8Matrix]) -> Tensor | Int8Matrix:
    first = weights[0]
    if len(weights) == 1:
        return first.detach() if isinstance(first, Tensor) else first
    matrices = [weight for weight in weights if isinstance(weight, Int8Matrix)]
    if matrices:
        return Int8Matrix.stack(matrices)
    tensors = [weight for weight in weights if isinstance(weight, Tensor)]
    whole = torch.cat([tensor.detach() for tensor in tensors])
    for tensor, view in zip(tensors, torch.split(whole, [len(tensor) for tensor in tensors]), strict=True):
        tensor.data = view
    return whole


def _weight_of(module: nn.Module) -> Tensor | Int8Matrix:
    weight = module.weight
    return weight if isinstance(weight, Int8Matrix) else module.get_parameter("weight")
