"""LoRA adapters: set on a model for training, written and read as standard PEFT folders.

A folder holds what any PEFT reads (adapter_config.json, adapter_model.safetensors) and `espalier.json`, which says what
the adapter was trained on; `read_adapter` refuses to put it on anything else. Knows no training loop and no engine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound, UnsupportedModel, did_you_mean
from espalier.core.ids import canonical_json
from espalier.nn.base import LoadedBase
from espalier.nn.linear import AdapterLinear
from espalier.nn.lora import ALL_LINEAR, LoraSpec, from_peft, to_peft

_PREFIX = "base_model.model."  # PEFT's name of the wrapped model
_ORIGIN = "espalier.json"
_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Adapters:
    """The trained layers of one model, by the name of the layer each stands on."""

    spec: LoraSpec
    layers: dict[str, AdapterLinear]

    def parameters(self) -> list[nn.Parameter]:
        """A and B of every layer, in the model's order."""
        return [tensor for layer in self.layers.values() for tensor in (layer.a, layer.b)]

    def state(self) -> dict[str, Tensor]:
        """The weights under PEFT's names, detached, on the CPU, float32."""
        found = {}
        for name, layer in self.layers.items():
            for part, tensor in (("A", layer.a), ("B", layer.b)):
                found[f"{_PREFIX}{name}.lora_{part}.weight"] = tensor.detach().to("cpu", torch.float32).contiguous()
        return found

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave; raises InvalidInput when names or shapes differ."""
        own = self.state()
        if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
            raise InvalidInput("these adapter weights belong to another model or another rank")
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.a.copy_(state[f"{_PREFIX}{name}.lora_A.weight"])
                layer.b.copy_(state[f"{_PREFIX}{name}.lora_B.weight"])

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the model answers as its base."""
        for layer in self.layers.values():
            layer.enabled = False
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.enabled = True


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """An adapter as it is served: by layer name A (r, in) and B (out, r), the scale already multiplied into B."""

    spec: LoraSpec
    layers: dict[str, tuple[Tensor, Tensor]]
    origin: dict[str, Any]


def attach_adapters(model: nn.Module, spec: LoraSpec, seed: int) -> Adapters:
    """Freeze `model` and put an `AdapterLinear` in place of every linear layer that `spec` targets.

    Each layer's A depends on (seed, its name) alone, so adding a target changes no other layer's start.
    Raises InvalidInput for a target no layer has, UnsupportedModel for one that is not a plain linear layer.
    """
    model.requires_grad_(False)
    layers = {}
    for name in find_targets(model, spec):
        layer = model.get_submodule(name)
        if type(layer) is not nn.Linear:
            raise UnsupportedModel(
                f"layer {name} is a {type(layer).__name__}, which adapters cannot stand on",
                hint="target plain linear layers only",
            )
        noise = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(noise[:8], "big") >> 1)
        layers[name] = AdapterLinear(layer, spec.rank, spec.scale, spec.dropout, generator)
    for name, adapter in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, adapter)
    return Adapters(spec, layers)


def find_targets(model: nn.Module, spec: LoraSpec) -> list[str]:
    """Full names of the layers `spec` targets, in the model's order; raises InvalidInput when a target matches none."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]
    if ALL_LINEAR in spec.targets:
        if not linear:
            raise UnsupportedModel("this model has no plain linear layer", hint="adapters stand on linear layers only")
        return linear
    every = [name for name, _ in model.named_modules() if name]
    for target in spec.targets:
        if not any(name.rpartition(".")[2] == target for name in every):
            raise InvalidInput(
                f"no layer is called {target!r}", hint=did_you_mean(target, {n.rpartition(".")[2] for n in linear})
            )
    return [name for name in every if name.rpartition(".")[2] in spec.targets]


def save_adapter(folder: Path, adapters: Adapters, base: LoadedBase, *, dataset: str = "", recipe: str = "") -> None:
    """Write the adapter into `folder` as PEFT would, and `espalier.json` beside it; same weights, same bytes.

    `dataset` and `recipe` are the digests it was made from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted({name.rpartition(".")[2] for name in adapters.layers})
    origin = {
        "base": base.spec,
        "base_digest": base.base_digest,
        "tokenizer_digest": base.tokenizer_digest,
        "template_digest": base.template_digest,
        "special_tokens": base.special_tokens,
        "dataset": dataset,
        "recipe": recipe,
    }
    _write(folder / _WEIGHTS, save(adapters.state(), metadata={"format": "pt"}))
    _write(folder / "adapter_config.json", _pretty(to_peft(adapters.spec, targets, base.spec)))
    _write(folder / _ORIGIN, _pretty(origin))


def read_adapter(folder: Path, base: LoadedBase, *, require_origin: bool = True) -> AdapterWeights:
    """Read a PEFT folder for use on `base`, and refuse it unless it was trained on exactly that.

    `require_origin=False` takes a foreign adapter without espalier.json on its shapes alone.
    Raises NotFound, DigestMismatch (other base, tokenizer or template), UnsupportedModel (not plain LoRA), InvalidInput
    (shapes, targets).
    """
    config = _read_json(folder / "adapter_config.json")
    spec = from_peft(config, str(folder / "adapter_config.json"))
    origin = {}
    if require_origin or (folder / _ORIGIN).exists():
        origin = _read_json(folder / _ORIGIN)
        _check_origin(origin, base, folder)
    weights = folder / _WEIGHTS
    try:
        state = load_file(weights)
    except FileNotFoundError:
        raise NotFound(f"no file {weights}", hint="an adapter folder is what PEFT's save_pretrained writes") from None
    except SafetensorError as error:
        raise InvalidInput(f"not a safetensors file: {error}", where=str(weights)) from None
    return AdapterWeights(spec, _pair_weights(state, spec, base.model, str(weights)), origin)


def _check_origin(origin: dict[str, Any], base: LoadedBase, folder: Path) -> None:
    checks = (
        ("base", "base_digest", base.base_digest, "serve it on the base it names, or train it again on this one"),
        ("tokenizer", "tokenizer_digest", base.tokenizer_digest, "restore that tokenizer, or train again"),
        ("chat template", "template_digest", base.template_digest, "restore that template, or train again"),
    )
    for noun, key, own, hint in checks:
        theirs = str(origin.get(key, ""))
        if theirs != own:
            raise DigestMismatch(
                f"the adapter in {folder} was trained on {origin.get('base')} with {noun} {theirs[:12] or 'unknown'}; "
                f"{base.spec} has {noun} {own[:12]}",
                hint=hint,
            )


def _pair_weights(
    state: dict[str, Tensor], spec: LoraSpec, model: nn.Module, where: str
) -> dict[str, tuple[Tensor, Tensor]]:
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, part = key.removeprefix(_PREFIX).rpartition(".lora_")
        if part not in {"A.weight", "B.weight"}:
            raise UnsupportedModel(f"{key} is no LoRA weight", where=where, hint="only plain LoRA can be served")
        pairs.setdefault(name, {})[part[0]] = tensor
    modules = dict(model.named_modules())
    layers = {}
    for name, pair in pairs.items():
        layer = modules.get(name)
        if layer is None or not hasattr(layer, "in_features"):
            raise InvalidInput(f"the adapter has weights for {name}, which the base lacks", where=where)
        wanted = ((spec.rank, layer.in_features), (layer.out_features, spec.rank))
        found = tuple(tuple(pair[part].shape) if part in pair else None for part in "AB")
        if found != wanted:
            raise InvalidInput(f"{name}: A and B are {found}, {wanted} is wanted", where=where)
        if not all(tensor.isfinite().all() for tensor in pair.values()):
            raise InvalidInput(f"{name}: the weights hold infinities or NaN", where=where, hint="its training diverged")
        layers[name] = (pair["A"].float(), pair["B"].float() * spec.scale)
    if not layers:
        raise InvalidInput("the adapter holds no weights", where=where)
    return layers


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"no file {path}",
            hint="an adapter folder holds adapter_config.json, adapter_model.safetensors and espalier.json",
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInput(f"not JSON: {error}", where=str(path)) from None
    if not isinstance(found, dict):
        raise InvalidInput("not a JSON object", where=str(path))
    return found


def _pretty(value: dict[str, Any]) -> bytes:
    return json.dumps(json.loads(canonical_json(value)), indent=2, ensure_ascii=False).encode() + b"\n"


def _write(path: Path, content: bytes) -> None:
    staged = path.with_name(f".{path.name}.part")
    with staged.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
