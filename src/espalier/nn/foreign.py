"""Adapters as other trainers leave them: found, opened without running anything, and taken apart into named parts.

Understood are PEFT's folders (also as Unsloth, Axolotl, LLaMA-Factory, DeepSpeed and FSDP name their keys), state dicts
of microsoft/LoRA's loralib, and the folders of MLX. Knows no base: what a part stands on is nn/importing's to check.
"""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from espalier.core.errors import InvalidInput, NotFound, UnsupportedModel
from espalier.nn.adapterfiles import CONFIG, read_json, read_tensors

Format = Literal["peft", "loralib", "mlx"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_WEIGHT_NAMES = ("adapter_model.safetensors", "adapter_model.bin", "adapters.safetensors")
# What torch's reader of pickles stumbles over in a file that is none, or not a whole one.
_BROKEN = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip
_NESTED = ("state_dict", "model", "module")  # where trainers put the state dict of a checkpoint
# Names that wrappers leave inside a layer's name: torch.compile, FSDP, activation checkpointing, PEFT's own.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"}
_LEADING = ("base_model.model.", "base_model.", "module.")
_PART = re.compile(
    r"(?P<layer>.+)\.(?P<part>lora_A|lora_B|lora_a|lora_b|lora_magnitude_vector|m)"
    r"(?:\.(?!weight$)(?P<adapter>[\w-]+))?(?:\.weight)?"
)
_KINDS = {"lora_A": "a", "lora_B": "b", "lora_a": "a", "lora_b": "b"}  # the others are DoRA's magnitude


@dataclass(frozen=True, slots=True)
class ForeignAdapter:
    """What the files hold. `layers`: by the layer's name as it is written there, its parts a, b and magnitude."""

    format: Format
    config: dict[str, Any]
    layers: dict[str, dict[str, Tensor]]
    weights: Path
    others: dict[str, Tensor] = field(default_factory=dict)  # tensors that are no part of a LoRA


def read_foreign(source: Path) -> ForeignAdapter:
    """Open the adapter in `source`, a folder or a file of weights.

    Raises NotFound, InvalidInput (broken, several adapters in one), UnsupportedModel (would run code when opened).
    """
    config: dict[str, Any] = {}
    if source.is_dir():
        weights = _find_weights(source)
        config = read_json(source / CONFIG) if (source / CONFIG).exists() else {}
    elif source.is_file():
        weights = source
    else:
        raise NotFound(f"no file or folder {source}", hint="name an adapter's folder, or a file of its weights")
    tensors = read_tensors(weights) if weights.suffix == ".safetensors" else _unpickle(weights)
    layers, others = _take_apart(tensors, str(weights))
    found = _tell_format(config, weights)
    if found == "mlx":
        layers = {
            name: {kind: t.t().contiguous() if kind in "ab" else t for kind, t in parts.items()}
            for name, parts in layers.items()
        }
    return ForeignAdapter(found, config, layers, weights, others)


def _find_weights(folder: Path) -> Path:
    named = [folder / name for name in _WEIGHT_NAMES if (folder / name).is_file()]
    if named:
        return named[0]
    found = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", *_PICKLES) and p.is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"no weights in {folder}", hint="an adapter has adapter_model.safetensors or adapter_model.bin")
    names = ", ".join(path.name for path in found[:3])
    raise InvalidInput(f"{folder} holds several files of weights: {names}", hint="name the file itself")


def _tell_format(config: Mapping[str, Any], weights: Path) -> Format:
    if "peft_type" in config:
        return "peft"
    if "lora_parameters" in config:
        return "mlx"
    if config:
        raise InvalidInput(
            f"{CONFIG} beside {weights.name} is neither PEFT's nor MLX's: it has no peft_type",
            where=str(weights.parent),
        )
    return "loralib"


def _unpickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of old formats
            found = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        reason = (str(error).strip() or repr(error)).split("\n")[0]
        raise InvalidInput(f"not a file of tensors: {reason}", where=str(path)) from None
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # torch's refusal; its module is one that nothing here imports
            raise
        raise UnsupportedModel(
            f"{path.name} holds more than tensors, and opening it could run code it brings along",
            where=str(path),
            hint="save the tensors alone as safetensors, on a machine you can lose, and import those",
        ) from None
    for name in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InvalidInput("not a state dict: it maps names to other things than tensors", where=str(path))
    return {str(name): tensor for name, tensor in found.items()}


def _take_apart(tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    adapters: set[str] = set()
    for key, tensor in tensors.items():
        matched = _PART.fullmatch(key)
        if matched is None:
            others[_plain_name(key)] = tensor
            continue
        adapters.add(matched["adapter"] or "")
        parts = layers.setdefault(_plain_name(matched["layer"]), {})
        kind = _KINDS.get(matched["part"], "magnitude")
        if kind in parts and len(adapters) == 1:
            raise InvalidInput(f"{key} and another name mean the same weights", where=where)
        # An axis of one at the end: loralib's weights as a convolution holds them.
        parts[kind] = tensor.squeeze(-1) if tensor.dim() == 3 and tensor.shape[-1] == 1 else tensor
    if len(adapters) > 1:
        names = ", ".join(sorted(name or "(unnamed)" for name in adapters))
        raise InvalidInput(f"it holds several adapters: {names}", where=where, hint="save the one you want by itself")
    if not layers:
        first = next(iter(tensors), "")
        said = f"its first tensor is {first}" if first else "it holds no tensor"
        raise InvalidInput(f"it holds no LoRA weights; {said}", where=where, hint="their names have lora_A and lora_B")
    return layers, others


def _plain_name(name: str) -> str:
    """Without what wrappers put around and into it."""
    name = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    stripped = True
    while stripped:
        stripped = False
        for leading in _LEADING:
            if name.startswith(leading):
                name, stripped = name.removeprefix(leading), True
    return name
