"""What a base will take of the machine's memory, read off its files before anything is loaded, and what there is.

Weights as they will be computed with, and the cache of all slots at their longest. What a step allocates and gives back
is not counted: the share of the machine leaves room for it. Knows no engine; what was really taken is measured there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from espalier.core.config import ServeConfig
from espalier.nn.locate import count_held_bytes, count_parameters, locate_base

# The rest is for the system, for what training takes beside, and for what a step allocates.
_SHARE_OF_MACHINE = 0.7
_SHARE_OF_GPU = 0.85


def estimate_bytes(place: str, config: ServeConfig) -> int:
    """Bytes that an engine over `place` (a name `nn.locate` knows) will take under `config`, adapters not counted.

    An upper bound for the cache, which is taken as it is written. Raises what `locate_base` raises.
    """
    import torch

    from espalier.nn.base import choose_dtype

    folder = locate_base(place, fetch=False)
    said: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    shape = said.get("text_config") or said
    parameters = count_parameters(folder)
    item_bytes = choose_dtype("auto", parameters, "cuda" if torch.cuda.is_available() else "cpu").itemsize
    return count_held_bytes(folder, item_bytes) + cache_bytes(shape, config, item_bytes)


def cache_bytes(shape: dict[str, Any], config: ServeConfig, item_bytes: int) -> int:
    """Keys and values of every slot, full. shape: the model's config.json."""
    heads = int(shape.get("num_attention_heads") or 1)
    width = int(shape.get("head_dim") or shape.get("hidden_size", 0) // heads)
    context = min(config.max_context_tokens, int(shape.get("max_position_embeddings") or 2048))
    rows = config.max_batch * context * int(shape.get("num_hidden_layers") or 0)
    return 2 * rows * int(shape.get("num_key_value_heads") or heads) * width * item_bytes


def budget_bytes(config: ServeConfig) -> int:
    """What all bases together may take: `serve.memory_bytes`, or a share of the GPU's, or of the machine's memory."""
    if config.memory_bytes:
        return config.memory_bytes
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory * _SHARE_OF_GPU)
    import psutil

    return int(min(psutil.virtual_memory().total, _limit_bytes()) * _SHARE_OF_MACHINE)


def folder_bytes(folder: Path) -> int:
    """Bytes of the safetensors in a folder: what an adapter takes."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _limit_bytes() -> int:
    """What this process' control group may hold (cgroup v2); more than any machine has where there is no limit."""
    try:
        said = Path("/sys/fs/cgroup/memory.max").read_text("utf-8").strip()
    except OSError:
        return 1 << 62
    return int(said) if said.isdigit() else 1 << 62
