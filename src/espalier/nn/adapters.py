"""Adapters on a model: attached for training, saved, taken up again, and read for serving.

`nn/adapterfiles` is the folder they are kept in. Knows no training loop and no engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from espalier.core.errors import InvalidInput, UnsupportedModel, did_you_mean
from espalier.nn.adapterfiles import PREFIX, StoredAdapter, StoredLayer, origin_of, read_stored, write_stored
from espalier.nn.base import LoadedBase
from espalier.nn.dora import row_lengths
from espalier.nn.frozen import FrozenWeight, dense
from espalier.nn.linear import AdapterLinear
from espalier.nn.lora import ALL_LINEAR, LoraSpec, choose_layers, layer_index
from espalier.nn.quantized import QuantizedLinear

_LINEAR = (nn.Linear, QuantizedLinear)
# In a mixture of experts PEFT takes these names for the experts' stacked weights and the router, on whatever layer of
# the model they stand (0.21, transformers_weight_conversion), so an adapter there would be read as another.
_EXPERTS = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})


@dataclass(frozen=True, slots=True)
class Adapters:
    """The trained layers of one model, by the name of the layer each stands on."""

    spec: LoraSpec
    layers: dict[str, AdapterLinear]

    @property
    def is_plain(self) -> bool:
        """Whether every layer is y = W x + s B A x over a dense W: no DoRA, no dropout, nothing quantised."""
        return not self.spec.dora and not self.spec.dropout and all(
            isinstance(layer.base, nn.Linear) for layer in self.layers.values()
        )  # fmt: skip

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained, in the model's order."""
        return list(self.named_parameters().values())

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """All that is trained, by the full name of its layer and PEFT's name of the part, in the model's order."""
        return {
            f"{name}.{part}": tensor for name, layer in self.layers.items() for part, tensor in layer.parts().items()
        }

    def state(self) -> dict[str, Tensor]:
        """The weights under PEFT's names, detached, on the CPU, float32."""
        return {
            f"{PREFIX}{name}": tensor.detach().to("cpu", torch.float32).contiguous()
            for name, tensor in self.named_parameters().items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave; raises InvalidInput when names or shapes differ."""
        own = {f"{PREFIX}{name}": tensor for name, tensor in self.named_parameters().items()}
        if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
            raise InvalidInput("these adapter weights belong to another model or another rank")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def stored(self, origin: dict[str, Any] | None = None) -> StoredAdapter:
        """As they are written; the tensors are the trained ones, not copies."""
        layers = {
            name: StoredLayer(layer.a, layer.b, layer.scale, layer.magnitude)
            for name, layer in sorted(self.layers.items())
        }
        return StoredAdapter(self.spec, layers, origin or {})


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """An adapter as it is served: by layer name A (r, in) and B (out, r), the scale already multiplied into B.

    A DoRA's layer has gains g (out) too, and y = g (W x) + B A x + bias: they are already multiplied into B.
    """

    spec: LoraSpec
    layers: dict[str, tuple[Tensor, Tensor]]
    origin: dict[str, Any]
    gains: dict[str, Tensor] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max(a.shape[0] for a, _ in self.layers.values())


def attach_adapters(model: nn.Module, spec: LoraSpec, seed: int) -> Adapters:
    """Freeze `model` and put an `AdapterLinear` in place of every linear layer that `spec` targets.

    Each layer's A depends on (seed, its name) alone, so adding a target changes no other layer's start.
    Raises InvalidInput for a target no layer has, UnsupportedModel for one that is not a plain linear layer.
    """
    return _attach(model, spec, find_targets(model, spec), seed)


def attach_stored(model: nn.Module, stored: StoredAdapter, *, dropout: float | None = None) -> Adapters:
    """Freeze `model` and go on training what `read_stored` gave, on the layers it stands on; `dropout` as wanted now.

    Raises UnsupportedModel as `attach_adapters`.
    """
    spec = stored.spec if dropout is None else stored.spec.model_copy(update={"dropout": dropout})
    names = [name for name, _ in model.named_modules() if name in stored.layers]
    adapters = _attach(model, spec, names, seed=0)
    with torch.no_grad():
        for name, layer in adapters.layers.items():
            kept = stored.layers[name]
            layer.a.copy_(kept.a)
            layer.b.copy_(kept.b)
            if layer.magnitude is not None and kept.magnitude is not None:
                layer.magnitude.copy_(kept.magnitude)
    return adapters


def continue_adapters(base: LoadedBase, folder: Path, *, dropout: float | None = None) -> Adapters:
    """Attach the adapter in `folder` to `base.model` for further training; a score head beside it is left out.

    Raises what `read_stored` and `attach_stored` raise.
    """
    return attach_stored(base.model, read_stored(folder, base, beside_head=True), dropout=dropout)


def find_targets(model: nn.Module, spec: LoraSpec) -> list[str]:
    """Full names of the layers `spec` targets, in the model's order; raises InvalidInput when a target matches none.

    Of a model that also sees or hears, only the layers that compute text: others get no gradient from it. Of a mixture
    of experts, the attention layers: experts and router stay frozen, and UnsupportedModel is raised for their names.
    """
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    text = _prefix_of_text(model)
    own = [(n, m) for n, m in model.named_modules() if n.startswith(text) or m is head]
    stacked = any(weight.dim() == 3 and ".experts." in name for name, weight in model.named_parameters())
    taken = _EXPERTS if stacked else frozenset()
    linear = [n for n, m in own if type(m) in _LINEAR and m is not head and n.rpartition(".")[2] not in taken]
    if not linear:
        raise UnsupportedModel("this model has no plain linear layer", hint="adapters stand on linear layers only")
    for target in taken.intersection(spec.targets):
        raise UnsupportedModel(
            f"the experts and the router of a mixture of experts stay frozen, and {target!r} names those",
            hint="take it out of `targets`; `tune: full` trains everything",
        )
    every = [name for name, _ in own if name]
    for target in [*spec.targets, *_names_in(spec)]:
        if target != ALL_LINEAR and not any(name.rpartition(".")[2] == target for name in every):
            raise InvalidInput(
                f"no layer is called {target!r}", hint=did_you_mean(target, {n.rpartition(".")[2] for n in linear})
            )
    found = linear if ALL_LINEAR in spec.targets else [n for n in every if n.rpartition(".")[2] in spec.targets]
    layers = choose_layers(spec, linear)
    return found if layers is None else [name for name in found if layer_index(name) in layers]


def _prefix_of_text(model: nn.Module) -> str:
    decoder = model.get_decoder() if isinstance(model, PreTrainedModel) else model
    return next((f"{name}." for name, module in model.named_modules() if module is decoder and name), "")


def save_adapter(folder: Path, adapters: Adapters, base: LoadedBase, *, dataset: str = "", recipe: str = "") -> str:
    """Write the adapter into `folder` as PEFT would, and `espalier.json` beside it; same weights, same bytes.

    `dataset` and `recipe` are the digests it was made from. Returns the sha256 of the weights' file.
    """
    modules = [name for name, _ in base.model.named_modules()]
    return write_stored(folder, adapters.stored(origin_of(base, dataset=dataset, recipe=recipe)), modules, base.spec)


def read_adapter(folder: Path, base: LoadedBase, *, require_origin: bool = True) -> AdapterWeights:
    """Read a PEFT folder to be served on `base`, whose weights must be there; raises what `read_stored` raises.

    A DoRA's gains, m / |W + s B A| row by row, are computed here once: they never change again.
    """
    stored = read_stored(folder, base, require_origin=require_origin)
    layers = {name: (layer.a, layer.b * layer.scale) for name, layer in stored.layers.items()}
    gains = {}
    for name, layer in stored.layers.items():
        if layer.magnitude is not None:
            a, b = layers[name]
            gains[name] = layer.magnitude / _lengths_at(base.model.get_submodule(name), a, b)
            layers[name] = (a, b * gains[name][:, None])
    return AdapterWeights(stored.spec, layers, stored.origin, gains)


def _lengths_at(layer: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """|W + B A| of each row of the layer's W, (out) float32 on the CPU."""
    weight: FrozenWeight = getattr(layer, "base", layer).weight  # type: ignore[assignment]
    with torch.inference_mode():
        w = dense(weight, torch.float32)
        return row_lengths(w, a.to(w.device), b.to(w.device)).cpu()


def _attach(model: nn.Module, spec: LoraSpec, names: list[str], seed: int) -> Adapters:
    model.requires_grad_(False)
    layers = {}
    for name in names:
        layer = model.get_submodule(name)
        if type(layer) not in _LINEAR:
            raise UnsupportedModel(
                f"layer {name} is a {type(layer).__name__}, which adapters cannot stand on",
                hint="target plain linear layers only",
            )
        layers[name] = AdapterLinear(name, layer, spec, seed)
    for name, adapter in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, adapter)
    return Adapters(spec, layers)


def _names_in(spec: LoraSpec) -> list[str]:
    """Plain names among the patterns of ranks and alphas: those a recipe may have misspelt."""
    return sorted({name for name in (*spec.ranks, *spec.alphas) if name.isidentifier()})
