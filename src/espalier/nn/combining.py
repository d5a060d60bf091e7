"""Several adapters of one base made one, by PEFT's `add_weighted_adapter`, a layer at a time.

A layer at a time needs no base in memory, gives every layer its own rank where adapters differ, and makes what DARE
draws depend on (seed, the layer's name) alone. Knows folders and layers, no store.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espalier.core.errors import InvalidInput, MissingExtra, UnsupportedModel
from espalier.nn.adapterfiles import WEIGHTS, StoredAdapter, StoredLayer, origin_of, read_stored, write_stored
from espalier.nn.base import LoadedBase
from espalier.nn.combination import CombineSpec
from espalier.nn.lora import LoraSpec

_WITH_DENSITY = ("ties", "dare")


def combine_adapters(
    base: LoadedBase, folders: Sequence[Path], folder: Path, spec: CombineSpec, *, require_origin: bool = True
) -> StoredAdapter:
    """Write what `spec` makes of the adapters in `folders` to `folder`, as a standard adapter of `base`.

    A layer that only some of them have is made of those. Raises what `read_stored` raises, MissingExtra without peft,
    InvalidInput (fewer than two, weights that are not as many, ranks that differ where `how` needs one) and
    UnsupportedModel for a DoRA.
    """
    if len(folders) < 2:
        raise InvalidInput("one adapter is nothing to combine", hint="name two or more")
    weights = spec.weights or (1 / len(folders),) * len(folders)
    if len(weights) != len(folders):
        raise InvalidInput(f"{len(weights)} weights for {len(folders)} adapters", hint="give one for each, in order")
    adapters = [read_stored(place, base, require_origin=require_origin) for place in folders]
    for place, adapter in zip(folders, adapters, strict=True):
        if adapter.spec.dora:
            raise UnsupportedModel(
                "a DoRA adapter cannot be combined: its rows' lengths do not add up",
                where=str(place),
                hint="merge it into its base: `espalier adapter merge`",
            )
    names = sorted({name for adapter in adapters for name in adapter.layers})
    layers = {}
    for name in names:
        present = [(a.layers[name], w) for a, w in zip(adapters, weights, strict=True) if name in a.layers]
        layers[name] = _combine_layer(name, present, spec)
    combined = StoredAdapter(_spec_of(layers), layers, origin_of(base) | _lineage(adapters, folders, weights, spec))
    write_stored(folder, combined, [name for name, _ in base.model.named_modules()], base.spec)
    return combined


def _combine_layer(name: str, present: Sequence[tuple[StoredLayer, float]], spec: CombineSpec) -> StoredLayer:
    ranks = [layer.a.shape[0] for layer, _ in present]
    by_svd = spec.how.endswith("svd")
    if spec.how != "cat" and not by_svd and len(set(ranks)) > 1:
        raise InvalidInput(
            f"{name}: {spec.how} needs adapters of one rank, these have {', '.join(map(str, ranks))}",
            hint="use cat, svd, or another that ends in svd",
        )
    options: dict[str, Any] = {}
    if spec.how.startswith(_WITH_DENSITY):
        options["density"] = spec.density
    if by_svd:
        options |= {"svd_rank": spec.rank or max(ranks), "svd_full_matrices": False}
    noise = sha256(f"combine/{spec.seed}/{name}".encode()).digest()
    # PEFT draws from the process' generator, and warns of a second adapter and a density of 1, which are wanted here.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
        model = _toy(present)
        torch.manual_seed(int.from_bytes(noise[:8], "big") >> 1)
        model.add_weighted_adapter(
            [str(i) for i in range(len(present))], [weight for _, weight in present], "made", spec.how, **options
        )
    layer = model.model.layer
    a, b = (part["made"].weight.detach().float().contiguous() for part in (layer.lora_A, layer.lora_B))
    return StoredLayer(a, b, float(layer.scaling["made"]))


def _toy(present: Sequence[tuple[StoredLayer, float]]) -> Any:
    """PEFT's model of a single linear layer that has all the adapters."""
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise MissingExtra("combining adapters needs peft", hint="pip install 'espalier[peft]'") from error
    first = present[0][0]
    holder: Any = nn.Module()
    with torch.device("meta"):
        blank = nn.Linear(first.a.shape[1], first.b.shape[0], bias=False)
    holder.layer = blank.to_empty(device="cpu")
    model = holder
    for number, (layer, _) in enumerate(present):
        rank = layer.a.shape[0]
        config = LoraConfig(r=rank, lora_alpha=layer.scale * rank, target_modules=["layer"])
        if number == 0:
            model = LoraModel(holder, config, "0")
        else:
            model.peft_config[str(number)] = config
            model.inject_adapter(model.model, str(number))
    with torch.no_grad():
        for number, (layer, _) in enumerate(present):
            holder.layer.lora_A[str(number)].weight.copy_(layer.a)
            holder.layer.lora_B[str(number)].weight.copy_(layer.b)
    return model


def _spec_of(layers: dict[str, StoredLayer]) -> LoraSpec:
    """Settings that give each layer its rank and a scale of 1: the scales are in the weights already."""
    ranks = {name: layer.a.shape[0] for name, layer in layers.items()}
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: rank for name, rank in ranks.items() if rank != common}
    targets = tuple(sorted({name.rpartition(".")[2] for name in layers}))
    return LoraSpec(rank=common, alpha=common, targets=targets, ranks=others, alphas=dict(others))


def _lineage(
    adapters: Sequence[StoredAdapter], folders: Sequence[Path], weights: Sequence[float], spec: CombineSpec
) -> dict[str, Any]:
    parts = [
        {
            "weights_sha256": sha256((place / WEIGHTS).read_bytes()).hexdigest(),
            "weight": weight,
            "dataset": str(adapter.origin.get("dataset", "")),
            "recipe": str(adapter.origin.get("recipe", "")),
        }
        for adapter, place, weight in zip(adapters, folders, weights, strict=True)
    ]
    return {"combined": {"how": spec.how, "density": spec.density, "seed": spec.seed, "adapters": parts}}
