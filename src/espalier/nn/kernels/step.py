"""A whole step of a dense decoder by ctypes: `espalier_step` of sources/step.c over torch's own memory.

Knows weights by what they are to a layer, adapters by what they add at each place; no module, no request.

Legend: t rows of the step, n rows that decide a token, m model width, h heads, kv key heads, d head width, v
vocabulary, i in, o out, r rank.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from espalier.nn.kernels.compiling import kernels

PARTS = 3  # linear layers to a place at most
PLACES = 4  # of a layer: q k v, out, gate and up, down


class _Place(ctypes.Structure):
    """`struct place`: keep the two alike, as all others here."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "scales")),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs")),
        ("parts", ctypes.c_int64 * PARTS),
    ]


class _Pair(ctypes.Structure):
    """`struct pair`"""

    _fields_ = [*((name, ctypes.c_void_p) for name in ("down", "up", "scale")), ("ranks", ctypes.c_int64 * PARTS)]


class _Layer(ctypes.Structure):
    """`struct layer`"""

    _fields_ = [
        *((name, _Place) for name in ("qkv", "out", "gate_up", "down")),
        *((name, ctypes.c_void_p) for name in ("attention_gain", "mlp_gain", "query_gain", "key_gain")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_int64) for name in ("window", "turns")),
    ]


_SIZES = ("count", "width", "heads", "key_heads", "head_width", "hidden", "vocabulary", "turning")


class _Model(ctypes.Structure):
    """`struct model`"""

    _fields_ = [
        ("layers", ctypes.POINTER(_Layer)),
        ("table", ctypes.c_void_p),
        ("head", _Place),
        *((name, ctypes.c_void_p) for name in ("final_gain", "cos", "sin")),
        *((name, ctypes.c_int64) for name in (*_SIZES, "slot_stride", "head_stride")),
        *((name, ctypes.c_float) for name in ("eps", "scale")),
        ("is_half", ctypes.c_int32),
    ]


class _Run(ctypes.Structure):
    """`struct run`"""

    _fields_ = [("pairs", ctypes.POINTER(_Pair)), ("begin", ctypes.c_int64), ("end", ctypes.c_int64)]


class _Step(ctypes.Structure):
    """`struct step`, without the room at its end, which C fills itself."""

    _fields_ = [
        ("model", ctypes.POINTER(_Model)),
        *((name, ctypes.c_void_p) for name in ("ids", "positions", "slots", "deciding")),
        ("runs", ctypes.POINTER(_Run)),
        *((name, ctypes.c_int64) for name in ("rows", "decided", "run_count", "sharing", "shared")),
        *((name, ctypes.c_int64) for name in ("most_ranks", "longest", "threads")),
        ("logits", ctypes.c_void_p),
        ("room", ctypes.c_void_p * 7),
    ]


@dataclass(frozen=True, slots=True)
class PlaceWeights:
    """Layers that read one input, under one another: weight (o, i) in the compute type, bias (o) float32.

    With `scales` (o) float32 the weight is int8, and each of its rows multiplied by its own.
    """

    weight: Tensor
    bias: Tensor | None
    parts: tuple[int, ...]  # outputs of each
    scales: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer. Gains float32; keys and values (slots, kv, positions, d)."""

    places: tuple[PlaceWeights, PlaceWeights, PlaceWeights, PlaceWeights]
    attention_gain: Tensor
    mlp_gain: Tensor
    head_gains: tuple[Tensor, Tensor] | None  # of queries and keys
    keys: Tensor
    values: Tensor
    turns: bool  # has rotary positions


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Everything a step reads of a model. cos, sin (positions, d/2) float32; table and head (v, m)."""

    layers: tuple[LayerWeights, ...]
    table: Tensor
    head: PlaceWeights
    final_gain: Tensor
    cos: Tensor
    sin: Tensor
    heads: int
    eps: float
    scale: float


@dataclass(frozen=True, slots=True)
class PairWeights:
    """An adapter at one place: A of each part under one another (r, i), B^T of each part (r, o) flat; gains (o)."""

    down: Tensor
    up: Tensor
    ranks: tuple[int, ...]
    gains: Tensor | None  # float32


class AdapterPack:
    """An adapter laid out for the kernel: by place, in the order of the model's layers, the head's last."""

    def __init__(self, pairs: Sequence[PairWeights | None]) -> None:
        self.pairs = pairs  # whose memory the structures point to
        self.most_ranks = max((len(pair.down) for pair in pairs if pair is not None), default=0)
        self.structures = (_Pair * len(pairs))()
        for place, pair in zip(self.structures, pairs, strict=True):
            if pair is not None:
                place.down, place.up, place.scale = pair.down.data_ptr(), pair.up.data_ptr(), _address(pair.gains)
                place.ranks[: len(pair.ranks)] = pair.ranks


@dataclass(slots=True)
class StepRows:
    """The rows of a step: ids, positions and slots (t) int64, deciding (n) int64 ascending; runs in their order.

    The first `sharing` rows have their first `shared` positions in common.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    deciding: Tensor
    longest: int  # positions the furthest row sees
    runs: list[tuple[AdapterPack | None, int]] = field(default_factory=list)  # None: the base; how many rows
    sharing: int = 0
    shared: int = 0


def can_step(weight: Tensor) -> bool:
    """Whether there is a kernel for a model of this weight's type and device."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and kernels().library is not None
    )


class StepKernel:
    """Computes steps of one model. The weights must stay where they are."""

    def __init__(self, weights: ModelWeights) -> None:
        library = kernels().library
        if library is None:
            raise RuntimeError("no compiled kernels: ask can_step first")
        self._compute = library.espalier_step
        self._weights = weights
        first = weights.layers[0]
        self._layers = (_Layer * len(weights.layers))(*map(_layer, weights.layers))
        self._model = _Model(
            layers=self._layers, table=weights.table.data_ptr(), head=_place(weights.head),
            final_gain=weights.final_gain.data_ptr(), cos=weights.cos.data_ptr(), sin=weights.sin.data_ptr(),
            count=len(weights.layers), width=weights.table.shape[1], heads=weights.heads,
            key_heads=first.keys.shape[1], head_width=first.keys.shape[3], hidden=first.places[3].weight.shape[1],
            vocabulary=len(weights.head.weight), turning=weights.cos.shape[1], slot_stride=first.keys.stride(0),
            head_stride=first.keys.stride(1), eps=weights.eps, scale=weights.scale,
            is_half=int(weights.table.dtype == torch.bfloat16),
        )  # fmt: skip

    def look_back(self, windows: Sequence[int | None]) -> None:
        """From now on rows see so many positions, by layer; None for all."""
        for layer, window in zip(self._layers, windows, strict=True):
            layer.window = window or 0

    def run(self, rows: StepRows, threads: int) -> Tensor:
        """Logits (n, v) float32; keys and values of all rows are in their slots then."""
        logits = torch.empty((len(rows.deciding), self._model.vocabulary), dtype=torch.float32)
        runs = (_Run * len(rows.runs))()
        begin = 0
        for run, (pack, count) in zip(runs, rows.runs, strict=True):
            run.begin, begin = begin, begin + count
            run.end = begin
            if pack is not None:
                run.pairs = ctypes.cast(pack.structures, ctypes.POINTER(_Pair))
        call = _Step(
            model=ctypes.pointer(self._model), ids=rows.ids.data_ptr(), positions=rows.positions.data_ptr(),
            slots=rows.slots.data_ptr(), deciding=rows.deciding.data_ptr(), runs=runs, rows=len(rows.ids),
            decided=len(rows.deciding), run_count=len(runs), sharing=rows.sharing, shared=rows.shared,
            most_ranks=max((pack.most_ranks for pack, _ in rows.runs if pack is not None), default=0),
            longest=rows.longest, threads=threads, logits=logits.data_ptr(),
        )  # fmt: skip
        if self._compute(ctypes.byref(call)):
            raise RuntimeError("a step found no memory for its room")  # as torch says it
        return logits


def _layer(weights: LayerWeights) -> _Layer:
    layer = _Layer(*map(_place, weights.places), weights.attention_gain.data_ptr(), weights.mlp_gain.data_ptr())
    if weights.head_gains is not None:
        layer.query_gain, layer.key_gain = (gain.data_ptr() for gain in weights.head_gains)
    layer.keys, layer.values = weights.keys.data_ptr(), weights.values.data_ptr()
    layer.turns = int(weights.turns)
    return layer


def _place(weights: PlaceWeights) -> _Place:
    outputs, inputs = weights.weight.shape
    place = _Place(weights.weight.data_ptr(), _address(weights.bias), _address(weights.scales), inputs, outputs)
    place.parts[: len(weights.parts)] = weights.parts
    return place


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
