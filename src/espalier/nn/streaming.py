"""Load a base straight into 4 or 8 bits: a tensor at a time, so that the whole of it is never in memory.

For models whose files name their weights as transformers' code does, which most dense families do. Others are loaded
whole and quantised then (nn/base.py). Knows no adapter.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from espalier.nn.locate import list_weight_files
from espalier.nn.quantized import QuantizedLinear, Scheme

_HEAD = "lm_head.weight"  # stored or not where it is tied to the embedding


def load_quantised(
    folder: Path, config: Any, dtype: torch.dtype, scheme: Scheme, device: torch.device
) -> PreTrainedModel | None:
    """The model of `folder` on `device`, its linear layers but the head in `scheme`, the rest in `dtype`, frozen.

    None when its files name other tensors than its code, or its code keeps numbers that cannot be made again by
    themselves, or keeps some in a type of their own.
    """
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    places = _locate_tensors(folder)
    wanted = [name for name, _ in model.named_parameters()]
    if set(wanted) - places.keys() or places.keys() - set(wanted) - {_HEAD}:
        return None
    if getattr(model, "_keep_in_fp32_modules", None) or not remake_buffers(model, device):
        return None
    head = model.get_output_embeddings()
    linear = {f"{n}.weight": n for n, m in model.named_modules() if type(m) is nn.Linear and m is not head}
    for name in sorted(wanted, key=lambda name: (name in linear, places[name], name)):  # biases before their weights
        with safe_open(places[name], "pt") as file:
            tensor = file.get_tensor(name).to(device, dtype)
        _put(model, name, tensor)
        if name in linear:
            _quantise(model, linear[name], scheme)
    model.tie_weights()
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.requires_grad_(False) if not _leftovers(model) else None


def _locate_tensors(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_weight_files(folder):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        found |= dict.fromkeys(header.keys() - {"__metadata__"}, path)
    return found


def remake_buffers(model: PreTrainedModel, device: torch.device) -> bool:
    """Make modules that hold numbers the files lack, as rotary angles, anew from the configuration alone."""
    for name, module in list(model.named_modules()):
        if not list(module.buffers(recurse=False)):
            continue
        needed = [p for p in list(inspect.signature(type(module).__init__).parameters.values())[1:]
                  if p.default is inspect.Parameter.empty]  # fmt: skip
        if [p.name for p in needed] != ["config"] or list(module.parameters()):
            return False
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, type(module)(model.config).to(device))
    return True


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Parameter(tensor, requires_grad=False))


def _quantise(model: nn.Module, name: str, scheme: Scheme) -> None:
    parent, _, leaf = name.rpartition(".")
    layer = model.get_submodule(name)
    setattr(model.get_submodule(parent), leaf, QuantizedLinear(layer, scheme))  # type: ignore[arg-type]


def _leftovers(model: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
