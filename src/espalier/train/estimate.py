"""What a training will take, before it starts: parameters, memory, time and money, each with what it assumes.

`estimate` is a pure function of shapes, of how many tokens there are, and of a rate; `read_figures` and
`look_at_machine` find out the first and what there is, `train/rehearsal` measures a rate. Knows no dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.nn.locate import list_tensor_shapes
from espalier.train.footprint import BaseFigures, Footprint, Machine, list_ways_out, measure_footprint
from espalier.train.recipe import TrainSpec

_SHOWN_WAYS = 3


@dataclass(frozen=True, slots=True)
class Workload:
    """How much there is to learn from. `tokens`: positions computed over the whole run."""

    tokens: int = 0
    steps: int = 0
    longest_tokens: int = 0
    supervised_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training will take. A figure that cannot be known without a rate is None."""

    footprint: Footprint
    free_bytes: int
    tokens: int
    steps: int
    tokens_per_s: float | None
    wall_s: float | None
    cost_usd: float | None
    assumptions: tuple[str, ...]
    ways_out: tuple[tuple[str, int], ...] = ()  # changes of the recipe, and the peak with each; where it does not fit

    @property
    def fits(self) -> bool:
        """Whether the peak is within the free memory."""
        return self.footprint.peak_bytes <= self.free_bytes


def estimate(
    spec: TrainSpec, base: BaseFigures, machine: Machine, workload: Workload, *, tokens_per_s: float | None = None
) -> Estimate:
    """What training `base` by `spec` on `workload` takes; `tokens_per_s` of the whole machine."""
    known = {"longest_tokens": workload.longest_tokens, "supervised_share": workload.supervised_share}
    footprint = measure_footprint(spec, base, machine, **known)  # type: ignore[arg-type]
    ways: list[tuple[str, Footprint]] = []
    if footprint.peak_bytes > machine.free_bytes:
        ways = list_ways_out(spec, base, machine, **known)  # type: ignore[arg-type]
    wall_s = workload.tokens / tokens_per_s if tokens_per_s else None
    assumptions = [f"{item.name}: {item.because}" for item in footprint.items]
    assumptions.append(f"the peak is reached in {footprint.moment}" if footprint.moment == "a step" else
                       f"the peak is reached while {footprint.moment}")  # fmt: skip
    if wall_s is not None:
        assumptions.append(f"time: {workload.tokens:,} tokens at {tokens_per_s:,.0f} a second, without looks and saves")
    if wall_s is not None and spec.usd_per_hour:
        assumptions.append(f"cost: {spec.usd_per_hour:g} USD an hour, as the recipe says")
    return Estimate(
        footprint=footprint,
        free_bytes=machine.free_bytes,
        tokens=workload.tokens,
        steps=workload.steps,
        tokens_per_s=tokens_per_s,
        wall_s=wall_s,
        cost_usd=None if wall_s is None or not spec.usd_per_hour else wall_s / 3600 * spec.usd_per_hour,
        assumptions=tuple(assumptions),
        ways_out=tuple((name, way.peak_bytes) for name, way in ways[:_SHOWN_WAYS]),
    )


def check_fit(spec: TrainSpec, base: BaseFigures, machine: Machine, workload: Workload | None = None) -> None:
    """Raise InvalidInput for a training that cannot fit in the machine's free memory, saying what would."""
    found = estimate(spec, base, machine, workload or Workload())
    if found.fits:
        return
    fitting = [f"{name} ({_gigabytes(peak)})" for name, peak in found.ways_out if peak <= machine.free_bytes]
    nearest = [f"{name} ({_gigabytes(peak)})" for name, peak in found.ways_out]
    parts = sorted(found.footprint.items, key=lambda item: -item.bytes)[:3]
    raise InvalidInput(
        f"this training needs about {_gigabytes(found.footprint.peak_bytes)} of memory and "
        f"{_gigabytes(machine.free_bytes)} are free; most of it is "
        + ", ".join(f"{item.name} ({_gigabytes(item.bytes)})" for item in parts),
        hint=f"what fits: {'; '.join(fitting)}" if fitting else
        f"nothing here fits alone; nearest: {'; '.join(nearest) or 'a smaller base'}",
    )  # fmt: skip


def read_figures(folder: Path) -> BaseFigures:
    """A base's shape from its folder; no weight is read. Raises UnsupportedModel for a configuration nobody knows."""
    from transformers import AutoConfig

    from espalier.core.errors import UnsupportedModel
    from espalier.nn.shape import lean_shape

    try:
        whole = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise UnsupportedModel(f"{folder}: {str(error).strip().splitlines()[0]}") from error
    config = whole.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1
    return BaseFigures(
        tensors=list_tensor_shapes(folder),
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=heads,
        key_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        hidden=_hidden(config),
        vocabulary=config.vocab_size,
        lean=lean_shape(whole) is not None,
    )


def look_at_machine(spec: TrainSpec) -> Machine:
    """This machine as a training will find it; memory this process holds already counts as free."""
    import os

    import psutil
    import torch

    from espalier.train.machine import compute_dtype

    if torch.cuda.is_available():
        return Machine("cuda", 1, torch.cuda.mem_get_info()[0], compute_dtype(torch.device("cuda")).itemsize)
    free = psutil.virtual_memory().available + psutil.Process().memory_info().rss
    cores = spec.threads or os.cpu_count() or 1
    return Machine("cpu", cores, min(free, _limit_bytes()), compute_dtype(torch.device("cpu")).itemsize)


def _hidden(config: Any) -> int:
    """What a token's feed-forward is wide, over all experts it goes through."""
    experts = getattr(config, "num_experts_per_tok", None)
    if not experts:
        return int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    return int(experts * width + (getattr(config, "shared_expert_intermediate_size", None) or 0))


def _limit_bytes() -> int:
    """What this process' control group may hold (cgroup v2); more than any machine has where there is no limit."""
    try:
        said = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return 1 << 62
    return int(said) if said.isdigit() else 1 << 62


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
