"""A quantised base as a folder of its own: written once from the original, never made dense again.

The Hub's layout with two differences: a linear layer's `weight` is stored as its codes and scales (nn/quantized.py),
and config.json says under `espalier_quantised` how. So the folder's digest, weights and configuration together, is of
what is computed with. Read back by nn/quantisedweights. Knows no gate and no store.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

import espalier
from espalier.core.errors import InvalidInput
from espalier.nn.adapterfiles import ORIGIN, pretty, write_file
from espalier.nn.base import LoadedBase
from espalier.nn.export import carry_files, write_configs
from espalier.nn.locate import QUANTISED, digest_base
from espalier.nn.quantized import measure_footprint

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


def read_origin(folder: Path) -> dict[str, Any]:
    """What a quantised base says of where it came from."""
    found: dict[str, Any] = json.loads((folder / ORIGIN).read_text("utf-8"))
    return found


def _whole_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every tensor once, by the name it is found under first."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel() == 0 or tensor.data_ptr() not in seen:
            state[name] = tensor.detach().to("cpu").contiguous()
        seen.add(tensor.data_ptr())
    return state


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
