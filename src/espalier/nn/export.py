"""A model as a base of its own: a folder in the Hub's layout that load_base, locate and transformers read back.

Weights as safetensors in shards of at most 5 GB, the configuration, tokenizer and template of the base it came from,
and `espalier.json` with where it came from. Knows no training.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from espalier.core.errors import InvalidInput
from espalier.nn.adapterfiles import ORIGIN, pretty, write_file
from espalier.nn.base import LoadedBase
from espalier.nn.locate import digest_base, name_stored_dtype

SHARD = "5GB"
_MADE_HERE = {"config.json", "generation_config.json", ORIGIN, "model.safetensors.index.json"}
_CARRIED = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*")  # tokenizer, template, terms

StoredDtype = Literal["stored", "float32", "bfloat16", "float16"]


def save_base(
    folder: Path,
    base: LoadedBase,
    *,
    weights: Mapping[str, Tensor] | None = None,
    dtype: StoredDtype = "stored",
    origin: Mapping[str, Any] | None = None,
    dataset: str = "",
    recipe: str = "",
) -> str:
    """Write `base.model` into `folder` as a base; returns the new base's digest. The same weights, the same bytes.

    weights: tensors that replace the model's own of that name (in the model too), such as a backbone's trained ones.
    dtype: `stored` is that of the files the base was loaded from. `origin` is said in espalier.json besides the base,
    `dataset` and `recipe` (digests). Raises InvalidInput for a name the model lacks, another shape, a quantised base.
    """
    check_writable(base)
    _take(base.model, weights or {})
    name = name_stored_dtype(base.path) if dtype == "stored" else dtype
    folder.mkdir(parents=True, exist_ok=True)
    state = _cast(base.model.state_dict(), getattr(torch, name))
    base.model.save_pretrained(folder, state_dict=state, max_shard_size=SHARD)
    write_configs(folder, base, name)
    carry_files(base.path, folder)
    said = {"base": base.spec, "base_digest": base.base_digest, "dataset": dataset, "recipe": recipe}
    write_file(folder / ORIGIN, pretty(said | dict(origin or {})))
    return digest_base(folder)


def check_writable(base: LoadedBase) -> None:
    """Raises InvalidInput for a base that is held quantised: its own weights are not in memory."""
    if base.quantised != "none":
        raise InvalidInput(
            f"{base.spec} is held in {base.quantised}, which its own weights cannot be written from",
            hint="load it without `quantise`",
        )


def _take(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in weights.items():
        if name not in own or own[name].shape != tensor.shape:
            found = tuple(own[name].shape) if name in own else None
            raise InvalidInput(f"{name} {tuple(tensor.shape)} does not fit the model, which has {found}")
        if own[name].data_ptr() != tensor.data_ptr():
            with torch.no_grad():
                own[name].copy_(tensor)


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """In `dtype`, tied weights still one tensor."""
    made: dict[tuple[int, torch.Size], Tensor] = {}
    for tensor in state.values():
        key = (tensor.data_ptr(), tensor.shape)
        if key not in made:
            made[key] = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()
    return {name: made[tensor.data_ptr(), tensor.shape] for name, tensor in state.items()}


def write_configs(folder: Path, base: LoadedBase, dtype: str, further: Mapping[str, Any] | None = None) -> None:
    """The base's own words, not what this version of transformers makes of them, but for number type and `further`."""
    config = json.loads((base.path / "config.json").read_text("utf-8"))
    said = {name for name in ("dtype", "torch_dtype") if name in config} or {"dtype"}
    write_file(folder / "config.json", pretty(config | dict.fromkeys(said, dtype) | dict(further or {})))
    generation = base.path / "generation_config.json"
    if generation.exists():
        write_file(folder / generation.name, generation.read_bytes())
    else:
        (folder / generation.name).unlink(missing_ok=True)


def carry_files(source: Path, folder: Path) -> None:
    """Copy what goes with any weights of a base: tokenizer, template, terms."""
    for path in sorted({path for pattern in _CARRIED for path in source.glob(pattern)}):
        if path.is_file() and path.name not in _MADE_HERE and not path.name.endswith(".safetensors.index.json"):
            shutil.copyfile(path, folder / path.name)
