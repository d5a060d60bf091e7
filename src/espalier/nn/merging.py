"""An adapter merged into its base: one folder, served and trained as any base, with no adapter beside it.

The sum is made in float32 and rounded once, to the type the base is stored in; from the base's own weights also where
the adapter was trained on quantised ones. Knows no store.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from espalier.core.errors import InvalidInput, UnsupportedModel
from espalier.nn.adapterfiles import WEIGHTS, StoredLayer, read_stored
from espalier.nn.base import LoadedBase
from espalier.nn.export import check_writable, save_base
from espalier.nn.locate import name_stored_dtype


def merge_into_base(base: LoadedBase, adapter: Path, folder: Path, *, require_origin: bool = True) -> str:
    """Add the adapter in the folder `adapter` to `base.model` and write that to `folder`; the new base's digest.

    The model is used up. Load the base with dtype `stored` or float32. Raises what `read_stored` and `save_base` raise,
    InvalidInput for a base held in fewer bits than it is stored in, and where a sum overflows its type.
    """
    check_writable(base)
    stored_type = getattr(torch, name_stored_dtype(base.path))
    if base.dtype not in (stored_type, torch.float32):
        raise InvalidInput(
            f"{base.spec} is stored as {stored_type}, but held as {base.dtype}", hint="load it with dtype `stored`"
        )
    adapted = read_stored(adapter, base, require_origin=require_origin)
    for name, layer in adapted.layers.items():
        weight = base.model.get_parameter(f"{name}.weight")
        if weight is base.model.get_input_embeddings().weight:
            raise UnsupportedModel(
                f"{name} is tied to the embedding, which the sum would change too",
                where=str(adapter),
                hint="train it on other targets than the head",
            )
        merged = merge_layer(weight.detach(), layer).to(stored_type)
        if not bool(merged.isfinite().all()):
            raise InvalidInput(f"{name}: the sum overflows {stored_type}", hint="the adapter may have diverged")
        with torch.no_grad():
            weight.copy_(merged)
    merged_from = {"weights_sha256": sha256((adapter / WEIGHTS).read_bytes()).hexdigest()}
    dataset, recipe = (str(adapted.origin.get(key, "")) for key in ("dataset", "recipe"))
    return save_base(folder, base, origin={"merged": merged_from}, dataset=dataset, recipe=recipe)


def merge_layer(weight: Tensor, layer: StoredLayer) -> Tensor:
    """W + s B A, its rows brought to DoRA's lengths where there are any; (o, i) float32."""
    total = layer.delta.to(weight.device).add_(weight.float())
    if layer.magnitude is None:
        return total
    return total.mul_((layer.magnitude.to(weight.device) / torch.linalg.vector_norm(total, dim=1))[:, None])
