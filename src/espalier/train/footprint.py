"""How much memory a training takes, from shapes alone: nothing is loaded, so it can be asked before a download ends.

Counted are the tensors the code keeps, by their shapes; what cannot be counted (the interpreter, temporaries between
two products) is a measured allowance, and each figure says what it rests on. On 46M and 135M shapes the peak is within
a quarter of what was measured (docs/estimates.md). Knows no dataset and no torch.

Legend: T positions of a pack, m width, f hidden width, q width of queries, keys and values together, c bytes of the
type products are computed in.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from espalier.nn.lora import ALL_LINEAR, LoraSpec, choose_layers, layer_index
from espalier.train.recipe import TrainSpec

RUNTIME_BYTES = {"cpu": 560_000_000, "cuda": 700_000_000}  # measured: the libraries alone; a CUDA context
ALLOWANCE = 0.25  # of what a pack keeps: temporaries and what the allocator holds back; measured 0.2 to 0.28
HEAD_ROWS, HEAD_CHUNK_BYTES = 1024, 32 << 20  # logits made at once: so many rows, so many bytes (nn/crossentropy)
HEAD_BYTES = 12  # of a logit: as multiplied, in float32, its log-probability, its gradient
EXACT_BELOW = 50_000_000  # parameters up to which a frozen base is held in float32 (nn/base)
BITS = {"nf4": 4.127, "int8": 8.1}  # of a quantised weight (nn/quantized)


@dataclass(frozen=True, slots=True)
class BaseFigures:
    """A base's shape, as its configuration and the headers of its weight files tell it."""

    tensors: Mapping[str, tuple[int, ...]]
    width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    hidden: int  # computed for a token: of all its experts together
    vocabulary: int
    lean: bool  # whether nn/shape knows the architecture

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensors.values())

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """(out, in) of the linear layers that an adapter may stand on, by the module's name."""
        return {
            name.removesuffix(".weight"): (shape[0], shape[1])
            for name, shape in self.tensors.items()
            if name.endswith(".weight")
            and len(shape) == 2
            and layer_index(name) is not None
            and not any(word in name for word in ("embed", "router", "lm_head"))
        }


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to train on."""

    kind: str  # cpu or cuda
    cores: int
    free_bytes: int
    compute_bytes: int  # of the type products are computed in: 2 where bf16 is native, else 4


@dataclass(frozen=True, slots=True)
class Item:
    """One part of the memory, and what its figure rests on."""

    name: str
    bytes: int
    because: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of a training. `peak_bytes` is the highest of its moments, loading and a step."""

    items: tuple[Item, ...]
    peak_bytes: int
    moment: str
    trained: int
    total: int


def count_trained(spec: TrainSpec, base: BaseFigures) -> int:
    """How many parameters learn."""
    if spec.tune == "head":
        return 0
    if spec.tune == "lora":
        return sum(
            spec.lora.rank_of(name) * (rows + columns) + (rows if spec.lora.dora else 0)
            for name, (rows, columns) in _adapted(spec.lora, base)
        )
    return sum(math.prod(shape) for name, shape in base.tensors.items() if not _is_frozen(spec, name))


def measure_footprint(
    spec: TrainSpec, base: BaseFigures, machine: Machine, *, longest_tokens: int = 0, supervised_share: float = 1.0
) -> Footprint:
    """The memory of one process. `longest_tokens`: of a document; a pack is never shorter than that."""
    trained = count_trained(spec, base)
    lean = _is_lean(spec, base)
    devices = spec.where.workers if spec.where.shard and spec.where.kind != "here" else 1
    positions = max(spec.pack_tokens, longest_tokens)
    rows = max(1, int(positions * supervised_share))
    together = _together(spec, machine)
    held = _weights(spec, base, machine, lean) // devices
    kept = _activations(spec, base, machine, positions, rows, lean)
    chunk = min(HEAD_ROWS, rows, max(64, HEAD_CHUNK_BYTES // (machine.compute_bytes * base.vocabulary)))
    logits = chunk * base.vocabulary * HEAD_BYTES
    if spec.tune == "full":  # the embedding's gradient is made whole, then added
        logits += base.vocabulary * base.width * (4 + machine.compute_bytes)
    gradient = 4 * trained // devices
    results = max(0, min(spec.packs_per_step, together + 2) - together)
    kept = int(kept * (1 + ALLOWANCE)) if lean else kept
    passing = together * max(kept + logits, gradient) + results * gradient
    optimizer, own = 8 * trained // devices, 4 * trained // devices
    runtime = RUNTIME_BYTES[machine.kind]
    resident = runtime + held + (own if spec.tune == "lora" else 0) + optimizer
    items = (
        Item("base", held, _tell_weights(spec, base, machine, lean)),
        Item("trained", own, f"{trained:,} parameters in float32"),
        Item("gradients", gradient * (1 + results), f"float32, {1 + results} at a time"),
        Item("optimizer", optimizer, "AdamW's two moments in float32"),
        Item("activations", together * kept, _tell_packs(spec, positions, together, lean)),
        Item("logits", together * logits, f"{chunk} rows of {base.vocabulary:,} at a time"),
        Item("runtime", runtime, "interpreter and libraries, measured"),
    )
    moments = {
        "loading": runtime + _loading(spec, base, machine, held) // devices,
        "a step": resident + max(passing, 2 * gradient),
    }
    moment = max(moments, key=lambda name: moments[name])
    return Footprint(items, moments[moment], moment, trained, base.parameters)


def list_ways_out(
    spec: TrainSpec, base: BaseFigures, machine: Machine, *, longest_tokens: int = 0, supervised_share: float = 1.0
) -> list[tuple[str, Footprint]]:
    """Changes of the recipe that take less memory, each with what it then takes; those that fit first."""

    def try_one(name: str, **fields: object) -> tuple[str, Footprint]:
        changed = spec.model_copy(update=fields)
        return name, measure_footprint(
            changed, base, machine, longest_tokens=longest_tokens, supervised_share=supervised_share
        )

    found = [try_one(name, **fields) for name, fields in _changes(spec, machine)]
    now = measure_footprint(spec, base, machine, longest_tokens=longest_tokens, supervised_share=supervised_share)
    less = [way for way in found if way[1].peak_bytes < now.peak_bytes]
    return sorted(less, key=lambda way: (way[1].peak_bytes > machine.free_bytes, _order(way, machine)))


def _order(way: tuple[str, Footprint], machine: Machine) -> int:
    """Among ways that fit, the first in the list; among others, the smallest."""
    return 0 if way[1].peak_bytes <= machine.free_bytes else way[1].peak_bytes


def _changes(spec: TrainSpec, machine: Machine) -> Iterator[tuple[str, dict[str, object]]]:
    smaller = max(64, spec.pack_tokens // 4)
    if spec.pack_tokens > smaller:
        yield f"pack_tokens: {smaller}", {"pack_tokens": smaller}
    if _together(spec, machine) > 1:
        yield "threads: 1", {"threads": 1}
    if not spec.checkpointing:
        yield "checkpointing: true", {"checkpointing": True}
    if spec.tune == "lora" and spec.quantise == "none":
        yield "quantise: nf4", {"quantise": "nf4"}
    if spec.tune == "full":
        yield "tune: lora", {"tune": "lora"}
        yield "tune: lora, quantise: nf4", {"tune": "lora", "quantise": "nf4"}
    least: dict[str, object] = {"tune": "lora", "checkpointing": True, "threads": 1, "pack_tokens": smaller}
    rest = f"checkpointing: true, threads: 1, pack_tokens: {smaller}"
    yield f"tune: lora, {rest}", least
    yield f"tune: lora, quantise: nf4, {rest}", least | {"quantise": "nf4"}
    if spec.tune == "lora" and spec.quantise == "none" and not spec.where.shard:
        for workers in (2, 4, 8, 16):
            where = spec.where.model_copy(update={"kind": "processes", "workers": workers, "shard": True})
            yield f"where: {{kind: processes, workers: {workers}, shard: true}}", {"where": where}


def _is_lean(spec: TrainSpec, base: BaseFigures) -> bool:
    """Whether nn/decoder computes it; else transformers' own code does, which keeps more."""
    plain = spec.tune != "lora" or not (spec.lora.dora or spec.lora.dropout)
    return base.lean and plain and spec.quantise == "none" and not spec.where.shard


def _together(spec: TrainSpec, machine: Machine) -> int:
    """Packs computed at once: one a core, one on a GPU."""
    return min(spec.packs_per_step, spec.threads or machine.cores) if machine.kind == "cpu" else 1


def _weights(spec: TrainSpec, base: BaseFigures, machine: Machine, lean: bool) -> int:
    linear = sum(rows * columns for rows, columns in base.linear.values())
    if spec.quantise != "none":
        return int(linear * BITS[spec.quantise] / 8) + _held_bytes(spec, base, machine) * (base.parameters - linear)
    if spec.tune == "full":  # what learns in float32, and what products are computed with beside it
        return 4 * base.parameters + machine.compute_bytes * (linear if machine.compute_bytes == 4 else base.parameters)
    return (machine.compute_bytes if lean else _held_bytes(spec, base, machine)) * base.parameters


def _loading(spec: TrainSpec, base: BaseFigures, machine: Machine, held: int) -> int:
    """What the weights take while they come in; quantised ones reach a GPU already small."""
    if machine.kind == "cuda" and spec.quantise != "none":
        return held
    return _held_bytes(spec, base, machine) * base.parameters


def _held_bytes(spec: TrainSpec, base: BaseFigures, machine: Machine) -> int:
    """Of a weight as it is loaded: what learns in float32, a large frozen base in what is computed in."""
    return 4 if spec.tune == "full" or base.parameters < EXACT_BELOW else machine.compute_bytes


def _activations(spec: TrainSpec, base: BaseFigures, machine: Machine, positions: int, rows: int, lean: bool) -> int:
    """Bytes one pack keeps until its gradient is taken."""
    m, f, c = base.width, base.hidden, machine.compute_bytes
    q = (base.heads + 2 * base.key_heads) * base.head_width
    attended = base.heads * base.head_width
    ranks = sum(spec.lora.rank_of(name) for name, _ in _adapted(spec.lora, base)) if spec.tune == "lora" else 0
    stream = 4 if spec.tune == "full" else c
    if lean:  # nn/layer.Kept: two residual sums, q k v, the attention's answer, gate and up
        layer = 2 * stream * m + c * (q + attended + 2 * f) + 4 * base.heads
        working = positions * (stream * m + c * (4 * m + 2 * f + 2 * q))
    else:  # measured on transformers' modelling code under autograd
        wide = _held_bytes(spec, base, machine)
        layer, working = wide * (7 * m + 5 * f + 3 * q + attended), 0
        if spec.tune == "lora" and spec.lora.dropout:
            layer += wide * sum(columns for _, (_, columns) in _adapted(spec.lora, base)) // base.layers
    beside = c * ranks * positions
    if spec.checkpointing:
        return positions * (base.layers * stream * m + layer) + working + beside
    return positions * base.layers * layer + working + beside


def _adapted(spec: LoraSpec, base: BaseFigures) -> list[tuple[str, tuple[int, int]]]:
    """The linear layers that adapters stand on."""
    chosen = choose_layers(spec, base.linear)
    return [
        (name, shape)
        for name, shape in base.linear.items()
        if (chosen is None or layer_index(name) in chosen)
        and (ALL_LINEAR in spec.targets or name.rsplit(".", 1)[-1] in spec.targets or _fits(name, spec.targets))
    ]


def _fits(name: str, targets: Sequence[str]) -> bool:
    return any(name.endswith(f".{target}") for target in targets)


def _is_frozen(spec: TrainSpec, name: str) -> bool:
    below, index = spec.freeze.layers_below, layer_index(name)
    if below and ("embed" in name or (index is not None and index < below)):
        return True
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in spec.freeze.names)


def _tell_weights(spec: TrainSpec, base: BaseFigures, machine: Machine, lean: bool) -> str:
    if spec.quantise != "none":
        return f"linear layers in {spec.quantise}"
    if spec.tune == "full":
        return "float32 that learns, and a copy to compute with"
    return "bf16" if (machine.compute_bytes if lean else _held_bytes(spec, base, machine)) == 2 else "float32"


def _tell_packs(spec: TrainSpec, positions: int, together: int, lean: bool) -> str:
    kept = "layer inputs alone" if spec.checkpointing else "what backward reads"
    code = "the lean decoder, and a quarter for temporaries" if lean else "transformers' own code, as measured"
    return f"{kept} of {together} x {positions:,} tokens under {code}"
