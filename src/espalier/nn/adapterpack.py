"""An adapter laid out once for the compiled step: A as it is, B transposed, of fused layers behind one another.

Knows places and weights; no batch. Shapes: i in, o out, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from espalier.nn.adapters import AdapterWeights
from espalier.nn.kernels.step import AdapterPack, PairWeights
from espalier.nn.mixed import Place


def pack_adapter(
    weights: AdapterWeights, places: Sequence[Sequence[Place]], dtype: torch.dtype
) -> tuple[AdapterPack, AdapterWeights]:
    """The pack in `dtype`, places in their order; and the adapter as views of it, so that nothing is held twice."""
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    pairs = [_pack_place(weights, place, dtype, layers) for place in places]
    return AdapterPack(pairs), AdapterWeights(weights.spec, layers, weights.origin, weights.gains)


def _pack_place(
    weights: AdapterWeights, place: Sequence[Place], dtype: torch.dtype, views: dict[str, tuple[Tensor, Tensor]]
) -> PairWeights | None:
    here = [weights.layers.get(part.name) for part in place]
    found = [pair for pair in here if pair is not None]
    if not found:
        return None
    ranks = [0 if pair is None else len(pair[0]) for pair in here]
    down = torch.cat([a.to(dtype) for a, _ in found])
    up = torch.cat([b.to(dtype).t().flatten() for _, b in found])
    row = number = 0
    for part, rank in zip(place, ranks, strict=True):
        if rank:
            size = rank * part.out_features
            flat = up[number : number + size].view(rank, part.out_features)
            views[part.name] = (down[row : row + rank], flat.t())
            row, number = row + rank, number + size
    gains = None
    if any(part.name in weights.gains for part in place):
        ones = [weights.gains.get(part.name, torch.ones(part.out_features)) for part in place]
        gains = torch.cat(ones).float().contiguous()
    return PairWeights(down, up, tuple(ranks), gains)
