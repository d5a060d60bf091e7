"""Many adapters beside one frozen base: a batch may hold rows of several, each computed as if alone.

The A and B of the adapters that a step uses are laid side by side; two dense products serve all rows, and between them
what a row got from foreign adapters is set to zero. Knows no request; an adapter is a digest here.

Shapes: t rows, i in, o out, R ranks of all active adapters together.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espalier.core.errors import NotFound
from espalier.nn.adapters import AdapterWeights, find_targets
from espalier.nn.lora import LoraSpec

# Combinations of adapters kept laid out. A step's combination mostly repeats the last one's.
_KEPT_COMBINATIONS = 8


@dataclass(frozen=True, slots=True)
class _Packed:
    """Active adapters side by side: per layer A (R, i) and B^T (R, o); `owner` (R) says whose a column is."""

    layers: dict[str, tuple[Tensor, Tensor]]
    owner: Tensor


class AdapterBank:
    """The loaded adapters by digest, and which of them the coming step uses.

    Adapters come and go from any thread; `select` belongs to the one that runs the steps.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._lock = threading.Lock()
        self._loaded: dict[str, AdapterWeights] = {}
        self._combinations: OrderedDict[tuple[str, ...], _Packed] = OrderedDict()
        self.active: dict[str, tuple[Tensor, Tensor]] = {}
        self.foreign: Tensor | None = None  # (t, R), true where a column is not the row's own

    def add(self, digest: str, weights: AdapterWeights) -> None:
        """Hold an adapter; the same digest again changes nothing."""
        with self._lock:
            self._loaded.setdefault(digest, weights)

    def remove(self, digest: str) -> None:
        """Let an adapter go. The caller has made sure that no running work is pinned to it."""
        with self._lock:
            self._loaded.pop(digest, None)
            for combination in [names for names in self._combinations if digest in names]:
                del self._combinations[combination]

    def digests(self) -> list[str]:
        return sorted(self._loaded)

    def __contains__(self, digest: str) -> bool:
        return digest in self._loaded

    def select(self, rows: Sequence[tuple[str, int]]) -> None:
        """Set up the coming step: `rows` are (digest, how many rows) in the step's order, digest empty for the base."""
        names = tuple(sorted({digest for digest, _ in rows if digest}))
        if not names:
            self.active, self.foreign = {}, None
            return
        with self._lock:
            packed = self._pack(names)
        self.active = packed.layers
        if len(names) == 1 and all(digest for digest, _ in rows):
            self.foreign = None
            return
        index = {name: i for i, name in enumerate(names)}
        owners = torch.tensor([index.get(digest, -1) for digest, _ in rows], device=self._device)
        counts = torch.tensor([count for _, count in rows], device=self._device)
        self.foreign = owners.repeat_interleave(counts)[:, None] != packed.owner

    def _pack(self, names: tuple[str, ...]) -> _Packed:
        if names in self._combinations:
            self._combinations.move_to_end(names)
            return self._combinations[names]
        for name in names:
            if name not in self._loaded:
                raise NotFound(f"adapter {name[:12]} is not loaded", hint="load it before asking it")
        adapters = [self._loaded[name] for name in names]
        ranks = [adapter.spec.rank for adapter in adapters]
        layers = {}
        for layer in sorted({layer for adapter in adapters for layer in adapter.layers}):
            # An adapter that leaves this layer alone has zero columns there, so that one mask fits every layer.
            shapes = next(adapter.layers[layer] for adapter in adapters if layer in adapter.layers)
            a_width, b_width = shapes[0].shape[1], shapes[1].shape[0]
            pairs = [adapter.layers.get(layer) for adapter in adapters]
            a = [p[0] if p else torch.zeros(r, a_width) for p, r in zip(pairs, ranks, strict=True)]
            b = [p[1] if p else torch.zeros(b_width, r) for p, r in zip(pairs, ranks, strict=True)]
            layers[layer] = (self._place(torch.cat(a)), self._place(torch.cat(b, 1).t()))
        owner = torch.arange(len(names)).repeat_interleave(torch.tensor(ranks)).to(self._device)
        packed = _Packed(layers, owner)
        self._combinations[names] = packed
        if len(self._combinations) > _KEPT_COMBINATIONS:
            self._combinations.popitem(last=False)
        return packed

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, self._dtype).contiguous()


class MixedLinear(nn.Module):
    """A frozen linear layer that adds, row by row, what the row's own adapter says."""

    def __init__(self, base: nn.Linear, name: str, bank: AdapterBank) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.bank = bank
        self.in_features, self.out_features = base.in_features, base.out_features

    def forward(self, x: Tensor) -> Tensor:  # (1, t, i) -> (1, t, o)
        y: Tensor = self.base(x)
        pair = self.bank.active.get(self.name)
        if pair is not None:
            inner = x[0] @ pair[0].t()  # (t, R)
            if self.bank.foreign is not None:
                # Not a product with 0 or 1: 0 * inf of one adapter would be NaN in another's answer.
                inner.masked_fill_(self.bank.foreign, 0.0)
            y[0].addmm_(inner, pair[1])
        return y


def install_bank(model: nn.Module, bank: AdapterBank) -> None:
    """Put a `MixedLinear` in place of every linear layer of `model` but its head."""
    for name in find_targets(model, LoraSpec()):
        parent, _, leaf = name.rpartition(".")
        layer = model.get_submodule(name)
        setattr(model.get_submodule(parent), leaf, MixedLinear(layer, name, bank))  # type: ignore[arg-type]
