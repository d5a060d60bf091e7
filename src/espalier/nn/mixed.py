"""Many adapters beside one frozen base: a batch may hold rows of several, each computed as if alone.

The A and B of the adapters that a step uses are laid side by side; two dense products serve all rows, and between them
what a row got from foreign adapters is set to zero. Ranks, strengths and layers may differ from adapter to adapter and
within one. Of a DoRA's rows the layer's own product is multiplied by its gains first. Knows no request; an adapter is a
digest here.

Shapes: t rows, i in, o out, R ranks of all active adapters together, e active adapters that are DoRAs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from espalier.core.errors import NotFound, UnsupportedModel
from espalier.nn.adapters import AdapterWeights, find_targets
from espalier.nn.kernels.step import AdapterPack
from espalier.nn.lora import LoraSpec

# Lays an adapter out for a kernel; gives it back as views of that.
Packer = Callable[[AdapterWeights], tuple[AdapterPack, AdapterWeights]]

# Combinations of adapters kept laid out. A step's combination mostly repeats the last one's.
_KEPT_COMBINATIONS = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A linear layer of the base, by its full name, that an adapter may stand on."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class _Packed:
    """Active adapters side by side. Per place of c layers A (c R, i), B^T (c R, o); `owner` (R): whose a column is."""

    places: dict[str, tuple[Tensor, Tensor]]
    owner: Tensor
    gains: dict[str, Tensor]  # by place (e, c o): 1 where a DoRA does not stand
    dora_of: Tensor  # by adapter: its row in those, -1 for a plain LoRA


class AdapterBank:
    """The loaded adapters by digest, and which of them the coming step uses.

    Adapters come and go from any thread; `select` belongs to the one that runs the steps.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._lock = threading.Lock()
        self._loaded: dict[str, AdapterWeights] = {}
        self._combinations: OrderedDict[tuple[str, ...], _Packed] = OrderedDict()
        self._places: dict[str, Sequence[Place]] = {}
        self._active: dict[str, tuple[Tensor, Tensor]] = {}
        self._foreign: dict[int, Tensor] = {}  # by c: (t, c R), true where a column is not the row's own
        self._gains: dict[str, Tensor] = {}
        self._dora_of: Tensor | None = None  # (t), each row's row in the gains, -1 for none; None where no row has one
        self._gained: tuple[Tensor, Tensor] | None = None  # the rows that have gains, and which
        self._packer: Packer | None = None
        self._packs: dict[str, AdapterPack] = {}
        self.chosen: list[tuple[AdapterPack | None, int]] = []  # of the step, where a kernel adds: None for the base

    def pack_each(self, packer: Packer) -> None:
        """From now on a kernel adds: adapters are laid out once, as they come, and a step only names them."""
        self._packer = packer

    def declare(self, key: str, places: Sequence[Place]) -> None:
        """Make a place known. Several layers that read the same input may be one place, fused in this order."""
        self._places[key] = places

    def add(self, digest: str, weights: AdapterWeights) -> None:
        """Hold an adapter; the same digest again changes nothing.

        Raises UnsupportedModel when it stands on a layer that is no declared place: there it would be left out.
        """
        known = {place.name for places in self._places.values() for place in places}
        strange = sorted(name for name in weights.layers if name not in known)
        if strange:
            raise UnsupportedModel(
                f"the adapter stands on {strange[0]}, where none is served",
                hint="merge it and serve the result: `espalier adapter merge`",
            )
        pack = None
        if self._packer is not None:  # also where it seems to be there: it may go before the lock is held
            pack, weights = self._packer(weights)
        with self._lock:
            self._loaded.setdefault(digest, weights)
            if pack is not None:
                self._packs.setdefault(digest, pack)

    def remove(self, digest: str) -> None:
        """Let an adapter go. The caller has made sure that no running work is pinned to it."""
        with self._lock:
            self._loaded.pop(digest, None)
            self._packs.pop(digest, None)
            for combination in [names for names in self._combinations if digest in names]:
                del self._combinations[combination]

    def digests(self) -> list[str]:
        return sorted(self._loaded)

    def __contains__(self, digest: str) -> bool:
        return digest in self._loaded

    def select(self, rows: Sequence[tuple[str, int]]) -> None:
        """Set up the coming step: `rows` are (digest, how many rows) in the step's order, digest empty for the base."""
        if self._packer is not None:
            self._choose(rows)
            return
        names = tuple(sorted({digest for digest, _ in rows if digest}))
        self._active, self._foreign, self._gains, self._dora_of, self._gained = {}, {}, {}, None, None
        if not names:
            return
        with self._lock:
            packed = self._pack(names)
        self._active, self._gains = packed.places, packed.gains
        if len(names) == 1 and all(digest for digest, _ in rows) and not packed.gains:
            return
        index = {name: i for i, name in enumerate(names)}
        counts = torch.tensor([count for _, count in rows])
        owners = torch.tensor([index.get(digest, -1) for digest, _ in rows]).repeat_interleave(counts)
        if packed.gains:
            self._set_gained(torch.where(owners < 0, -1, packed.dora_of[owners]).to(self._device))
        foreign = owners.to(self._device)[:, None] != packed.owner
        self._foreign = {c: foreign.repeat(1, c) for c in {len(places) for places in self._places.values()}}

    def _choose(self, rows: Sequence[tuple[str, int]]) -> None:
        """Neighbouring rows of one adapter become one run."""
        runs: list[tuple[str, int]] = []
        for digest, count in rows:
            if runs and runs[-1][0] == digest:
                runs[-1] = (digest, runs[-1][1] + count)
            else:
                runs.append((digest, count))
        with self._lock:
            for digest, _ in runs:
                self._check_loaded(digest)
            self.chosen = [(self._packs[digest] if digest else None, count) for digest, count in runs]

    def _check_loaded(self, digest: str) -> None:
        if digest and digest not in self._loaded:
            raise NotFound(f"adapter {digest[:12]} is not loaded", hint="load it before asking it")

    def narrow(self, rows: Tensor) -> None:
        """From here on the step goes on with these of its rows only."""
        self._foreign = {c: foreign[rows] for c, foreign in self._foreign.items()}
        if self._dora_of is not None:
            self._set_gained(self._dora_of[rows])

    def scales(self, key: str) -> bool:
        """Whether `add_to` multiplies at this place too: y must then be the layer's product alone, no residual."""
        return self._gained is not None and key in self._gains

    def add_to(self, y: Tensor, key: str, x: Tensor, bias: Tensor | None = None) -> None:
        """Add to y (t, o) in place, row by row, what the row's own adapter makes of x (t, i) at this place.

        Where that is a DoRA, what y has of the layer, less its `bias`, is multiplied by its gains first.
        """
        pair = self._active.get(key)
        if pair is None:
            return
        inner = x @ pair[0].t()  # (t, c R)
        if self._foreign:
            # Not a product with 0 or 1: 0 * inf of one adapter would be NaN in another's answer.
            inner.masked_fill_(self._foreign[len(self._places[key])], 0.0)
        if self._gained is not None and key in self._gains:
            rows, which = self._gained
            gains = self._gains[key][which]
            y[rows] = y[rows] * gains if bias is None else (y[rows] - bias) * gains + bias
        y.addmm_(inner, pair[1])

    def _set_gained(self, dora_of: Tensor) -> None:
        rows = (dora_of >= 0).nonzero()[:, 0]
        self._dora_of = dora_of
        self._gained = (rows, dora_of[rows]) if len(rows) else None

    def _pack(self, names: tuple[str, ...]) -> _Packed:
        if names in self._combinations:
            self._combinations.move_to_end(names)
            return self._combinations[names]
        for name in names:
            self._check_loaded(name)
        adapters = [self._loaded[name] for name in names]
        ranks = [adapter.rank for adapter in adapters]
        used = {name for adapter in adapters for name in adapter.layers}
        packed_places = {
            key: self._pack_place(places, adapters)
            for key, places in self._places.items()
            if any(place.name in used for place in places)
        }
        owner = torch.arange(len(names)).repeat_interleave(torch.tensor(ranks)).to(self._device)
        doras = [adapter for adapter in adapters if adapter.gains]
        gains = {
            key: self._put(torch.stack([_gains_at(self._places[key], adapter) for adapter in doras]))
            for key in packed_places
            if any(place.name in adapter.gains for adapter in doras for place in self._places[key])
        }
        is_dora = torch.tensor([bool(adapter.gains) for adapter in adapters])
        packed = _Packed(packed_places, owner, gains, torch.where(is_dora, is_dora.cumsum(0) - 1, -1))
        self._combinations[names] = packed
        if len(self._combinations) > _KEPT_COMBINATIONS:
            self._combinations.popitem(last=False)
        return packed

    def _pack_place(self, places: Sequence[Place], adapters: Sequence[AdapterWeights]) -> tuple[Tensor, Tensor]:
        """A of every adapter for each fused layer under one another; B^T as blocks, so that each layer gets its own."""
        rows, blocks = [], []
        for place in places:
            pairs = [_pair_at(place, adapter) for adapter in adapters]
            rows += [a for a, _ in pairs]
            blocks.append(torch.cat([b for _, b in pairs], 1).t())
        return self._put(torch.cat(rows)), self._put(torch.block_diag(*blocks))  # type: ignore[no-untyped-call]

    def _put(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, self._dtype).contiguous()


def _pair_at(place: Place, adapter: AdapterWeights) -> tuple[Tensor, Tensor]:
    """Its A and B there, with zeros up to its largest rank, so that one mask fits every place."""
    if place.name not in adapter.layers:
        return torch.zeros(adapter.rank, place.in_features), torch.zeros(place.out_features, adapter.rank)
    a, b = adapter.layers[place.name]
    lacking = adapter.rank - a.shape[0]
    return (functional.pad(a, (0, 0, 0, lacking)), functional.pad(b, (0, lacking))) if lacking else (a, b)


def _gains_at(places: Sequence[Place], adapter: AdapterWeights) -> Tensor:
    return torch.cat([adapter.gains.get(place.name, torch.ones(place.out_features)) for place in places])


class MixedLinear(nn.Module):
    """A frozen linear layer that adds, row by row, what the row's own adapter says."""

    def __init__(self, base: nn.Linear, name: str, bank: AdapterBank) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.bank = bank
        self.in_features, self.out_features = base.in_features, base.out_features
        bank.declare(name, [Place(name, base.in_features, base.out_features)])

    def forward(self, x: Tensor) -> Tensor:  # (1, t, i) -> (1, t, o)
        y: Tensor = self.base(x)
        self.bank.add_to(y[0], self.name, x[0], self.base.bias)
        return y


class MixedHead(MixedLinear):
    """The same for the model's head, which is given only the rows `deciding` of the step."""

    deciding: Tensor

    def forward(self, x: Tensor) -> Tensor:  # (1, n, i) -> (1, n, v)
        self.bank.narrow(self.deciding)
        return super().forward(x)


def install_bank(model: PreTrainedModel, bank: AdapterBank) -> MixedHead | None:
    """Put a `MixedLinear` in place of every linear layer of `model`; returns its head's where that is one too."""
    head = model.get_output_embeddings()
    names = {module: name for name, module in model.named_modules()}
    for name in find_targets(model, LoraSpec()):
        _replace(model, name, MixedLinear(model.get_submodule(name), name, bank))
    if not isinstance(head, nn.Linear) or head not in names:
        return None
    mixed = MixedHead(head, names[head], bank)
    _replace(model, names[head], mixed)
    return mixed


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
