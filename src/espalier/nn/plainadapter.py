"""An adapter rewritten as the plainest LoRA that computes the same: one rank and scale 1 on every layer.

PEFT lets each layer have a rank and an alpha of its own. Engines that read only the general ones (vLLM before it knew
`rank_pattern`) would answer wrongly without a word, and every engine reads this form rightly. Knows no engine.
"""

from __future__ import annotations

from pathlib import Path

from torch.nn.functional import pad

from espalier.nn.adapterfiles import StoredAdapter, StoredLayer, write_stored
from espalier.nn.base import LoadedBase


def is_uniform(stored: StoredAdapter) -> bool:
    """Whether one rank and one alpha hold for every layer."""
    return not stored.spec.ranks and not stored.spec.alphas


def write_uniform(folder: Path, stored: StoredAdapter, base: LoadedBase) -> None:
    """Write the LoRA `stored` into `folder`: A padded with zero rows, B with zero columns, the scale within B."""
    rank = max(layer.a.shape[0] for layer in stored.layers.values())
    spec = stored.spec.model_copy(
        update={"rank": rank, "alpha": float(rank), "ranks": {}, "alphas": {}, "rslora": False}
    )
    layers = {name: _widen(layer, rank) for name, layer in stored.layers.items()}
    modules = [name for name, _ in base.model.named_modules()]
    write_stored(folder, StoredAdapter(spec, layers, stored.origin), modules, base.spec)


def _widen(layer: StoredLayer, rank: int) -> StoredLayer:
    lacking = rank - layer.a.shape[0]
    return StoredLayer(pad(layer.a, (0, 0, 0, lacking)), pad(layer.b * layer.scale, (0, lacking)), 1.0)
