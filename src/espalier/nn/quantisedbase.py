"""A quantised base as a folder of its own: written once from the original, read back as it is, never made dense again.

The Hub's layout with two differences: a linear layer's `weight` is stored as its codes and scales (nn/quantized.py),
and config.json says under `espalier_quantised` how. So the folder's digest, weights and configuration together, is of
what is computed with. Knows no gate and no store.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

import espalier
from espalier.core.errors import InvalidInput
from espalier.nn.adapterfiles import ORIGIN, pretty, write_file
from espalier.nn.base import LoadedBase
from espalier.nn.export import carry_files, write_configs
from espalier.nn.locate import QUANTISED, digest_base, list_weight_files
from espalier.nn.quantized import QuantizedLinear, Scheme, measure_footprint, quantise_model
from espalier.nn.streaming import remake_buffers

_SHARD_BYTES = 5_000_000_000


def save_quantised(base: LoadedBase, folder: Path) -> str:
    """Write `base`, held quantised on the CPU, into `folder` as a base of its own; returns the new base's digest.

    The same base and scheme, the same bytes. Raises InvalidInput for a base that is not held quantised.
    """
    if base.quantised == "none":
        raise InvalidInput(f"{base.spec} is not held quantised", hint="load it with `quantise`, on the CPU")
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(_cut(_whole_state(base.model)))
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
    footprint = measure_footprint(base.model)
    write_configs(folder, base, str(base.dtype).removeprefix("torch."), {QUANTISED: {"scheme": base.quantised}})
    carry_files(base.path, folder)
    said = {
        "base": base.spec,
        "base_digest": base.base_digest,
        "quantised": {
            "scheme": base.quantised,
            "espalier": espalier.__version__,
            "bits_per_quantised_weight": round(footprint.bits_per_quantised_weight, 3),
            "quantised_parameters": footprint.quantised_parameters,
            "parameters": footprint.parameters,
        },
    }
    write_file(folder / ORIGIN, pretty(said))
    return digest_base(folder)


def load_stored_quantised(folder: Path, config: Any, dtype: torch.dtype, scheme: Scheme) -> PreTrainedModel:
    """The model that `save_quantised` wrote, frozen, its unquantised parts in `dtype`.

    Raises InvalidInput when the files hold other tensors than the configuration asks for.
    """
    model = _make_empty(config, dtype, scheme)
    wanted = model.state_dict()
    found: dict[str, Tensor] = {}
    for path in list_weight_files(folder):
        found |= load_file(path)
    tied = _tied_names(model)
    lacking = sorted(wanted.keys() - found.keys() - tied)
    strange = sorted(found.keys() - wanted.keys())
    wrong = sorted(n for n in found.keys() & wanted.keys() if found[n].shape != wanted[n].shape)
    if lacking or strange or wrong:
        raise InvalidInput(
            f"the quantised weights do not fit their configuration, first {(lacking + strange + wrong)[0]}",
            where=str(folder),
            hint="quantise the original again",
        )
    # Codes and scales stay as they are stored; all else takes the type the empty model has for it.
    packed = {f"{n}.weight." for n, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    state = {
        name: tensor if name.rpartition(".")[0] + "." in packed else tensor.to(wanted[name].dtype)
        for name, tensor in found.items()
    }
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.requires_grad_(False)


def read_origin(folder: Path) -> dict[str, Any]:
    """What a quantised base says of where it came from."""
    found: dict[str, Any] = json.loads((folder / ORIGIN).read_text("utf-8"))
    return found


def _make_empty(config: Any, dtype: torch.dtype, scheme: Scheme) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    if not remake_buffers(model, torch.device("cpu")):  # it keeps numbers that only its own start-up makes
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    quantise_model(model, scheme)
    return model


def _whole_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every tensor once, by the name it is found under first."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel() == 0 or tensor.data_ptr() not in seen:
            state[name] = tensor.detach().to("cpu").contiguous()
        seen.add(tensor.data_ptr())
    return state


def _tied_names(model: PreTrainedModel) -> set[str]:
    """Names under which a file may lack a tensor, because it is another one's."""
    return set(getattr(model, "all_tied_weights_keys", None) or {})


def _cut(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    held = 0
    for name, tensor in state.items():
        size = tensor.numel() * tensor.element_size()
        if shard and held + size > _SHARD_BYTES:
            yield shard
            shard, held = {}, 0
        shard[name] = tensor
        held += size
    yield shard
