"""Before a training: what it would learn from, what it would take, which rate suits it. Nothing is recorded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Artifact, Spec
from espalier.services.tuning import TuneModel

if TYPE_CHECKING:
    from espalier.services.context import Context
    from espalier.train.job import Job


class TrainingAudit(Spec):
    """What a training would see of its data; the fields are those of the event `train.audit`."""

    audit: dict[str, Any]
    warnings: tuple[str, ...]

    def to_text(self) -> str:
        """For a terminal."""
        told = self.audit
        lines = [
            f"{told['examples']:,} examples in {told['documents']:,} documents, {told['tokens']:,} tokens, "
            f"{told['supervised_share']:.0%} of them learnt from; the longest has {told['longest_tokens']:,}",
            f"{told['dropped']:,} dropped, {told['truncated']:,} truncated, {told['split']:,} split",
        ]
        lines += [
            f"  {part['name'] or 'the dataset'}: {part['tokens']:,} tokens, share {part['share']:g}"
            for part in told["parts"]
        ]
        lines += [f"! {warning}" for warning in self.warnings]
        return "\n".join([*lines, "", told["sample"]])


class TrainingEstimate(Spec):
    """What a training would take. Figures that need a rate are absent where none could be measured."""

    fits: bool
    peak_bytes: int
    free_bytes: int
    items: dict[str, int]  # bytes by what they are for
    trained_parameters: int
    total_parameters: int
    tokens: int
    steps: int
    tokens_per_s: float | None
    wall_s: float | None
    cost_usd: float | None
    ways_out: dict[str, int]  # change of the recipe -> bytes at its peak
    assumptions: tuple[str, ...]

    def to_text(self) -> str:
        """For a terminal."""
        share = self.trained_parameters / self.total_parameters if self.total_parameters else 0.0
        lines = [
            f"parameters  {self.trained_parameters:,} of {self.total_parameters:,} learn ({share:.2%})",
            f"memory      {_size(self.peak_bytes)} at the peak, {_size(self.free_bytes)} free: "
            f"{'it fits' if self.fits else 'IT DOES NOT FIT'}",
        ]
        lines += [f"  {name:<12}{_size(count):>9}" for name, count in self.items.items()]
        if self.ways_out:
            lines.append("what takes less:")
            lines += [f"  {name}: {_size(count)}" for name, count in self.ways_out.items()]
        if self.wall_s is not None:
            lines.append(f"time        {self.wall_s / 3600:.2f} h: {self.steps:,} steps, {self.tokens:,} tokens, "
                         f"{self.tokens_per_s:,.0f} a second")  # fmt: skip
        if self.cost_usd is not None:
            lines.append(f"cost        {self.cost_usd:.2f} USD")
        return "\n".join([*lines, "assumed:", *(f"  {line}" for line in self.assumptions)])


class RateRange(Spec):
    """What a learning-rate range test found."""

    suggested_lr: float
    lowest_lr: float
    diverged_lr: float | None
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    chart: str

    def to_text(self) -> str:
        """For a terminal."""
        beyond = f", runs away at {self.diverged_lr:.1e}" if self.diverged_lr else ""
        found = (
            f"lr: {self.suggested_lr:.1e}  (the loss falls fastest there, is lowest at {self.lowest_lr:.1e}{beyond})"
        )
        return f"{self.chart}\n\n{found}"


class EstimateTraining(TuneModel):
    """Which training, and at what rate."""

    tokens_per_s: float = Field(0.0, ge=0, description="a rate you know, as from another machine; 0 = measured here")


class RateTest(TuneModel):
    """Which training, and between which rates."""

    lowest: float = Field(1e-6, gt=0, description="rate of the first step")
    highest: float = Field(1.0, gt=0, description="rate of the last step, if the loss lasts so long")
    steps: int = Field(100, ge=10, description="steps, each on new data; the rate grows by the same factor at each")


@operation("training.audit", "POST /v1/training/audit", positional=("recipe",), role="admin")
def audit(context: Context, request: TuneModel) -> TrainingAudit:
    """Show what a training would learn from: shares, what is cut and dropped and why, and a marked example.

    Example:
        espalier train audit recipe.yaml --dataset support
    """
    from espalier.services.measuring import open_judge

    with _open_job(context, request) as job:
        from espalier.train.rehearsal import audit_job  # torch: only once what was asked for is there

        found = audit_job(job, context.emit, open_judge)
    return TrainingAudit(audit=found.to_json(), warnings=tuple(found.warnings))


@operation("training.estimate", "POST /v1/training/estimate", positional=("recipe",), role="admin")
def estimate(context: Context, request: EstimateTraining) -> TrainingEstimate:
    """Say what a training would take: parameters, memory, time and cost, each with what it assumes.

    Example:
        espalier train estimate recipe.yaml --dataset support
    """
    from espalier.services.measuring import open_judge

    with _open_job(context, request) as job:
        from espalier.train.rehearsal import estimate_job  # torch: only once what was asked for is there

        found = estimate_job(job, context.emit, tokens_per_s=request.tokens_per_s, open_model=open_judge)
    footprint = found.footprint
    return TrainingEstimate(
        fits=found.fits,
        peak_bytes=footprint.peak_bytes,
        free_bytes=found.free_bytes,
        items={item.name: item.bytes for item in footprint.items},
        trained_parameters=footprint.trained,
        total_parameters=footprint.total,
        tokens=found.tokens,
        steps=found.steps,
        tokens_per_s=found.tokens_per_s,
        wall_s=found.wall_s,
        cost_usd=found.cost_usd,
        ways_out=dict(found.ways_out),
        assumptions=found.assumptions,
    )


@operation("training.lr_range", "POST /v1/training/lr-range", positional=("recipe",), role="admin")
def lr_range(context: Context, request: RateTest) -> RateRange:
    """Find a learning rate: a short training whose rate grows until the loss runs away. No weights are kept.

    Example:
        espalier train lr-range recipe.yaml --dataset support --steps 60
    """
    from espalier.services.measuring import open_judge

    with _open_job(context, request) as job:
        from espalier.train.lrrange import draw_chart
        from espalier.train.rehearsal import find_rate

        found = find_rate(
            job,
            context.emit,
            lowest=request.lowest,
            highest=request.highest,
            steps=request.steps,
            open_model=open_judge,
        )
    values = asdict(found)
    return RateRange(
        **{f"{name}_lr": values.pop(name) for name in ("suggested", "lowest", "diverged")},
        **values,
        chart=draw_chart(found),
    )


@dataclass(frozen=True, slots=True)
class _Given:
    """What a training step would be given: the same artifacts, outside a run."""

    inputs: Mapping[str, Artifact]
    folders: Mapping[str, Path]
    scratch: Path

    def input(self, name: str) -> Path:
        return self.folders[name]


@contextmanager
def _open_job(context: Context, request: TuneModel) -> Iterator[Job]:
    """The job that `espalier train` would do; where it would write is a folder that goes away."""
    from espalier.services.execution import resolve_artifact
    from espalier.services.tuning import list_inputs, read_training

    method, spec, path = read_training(context, request.recipe, request.param)
    artifacts = context.store.artifacts
    digests = {port: resolve_artifact(context, text) for port, text in list_inputs(context, request).items()}

    from espalier.nn.locate import anchor_base
    from espalier.services.steps.train import find_sources
    from espalier.train.job import Job

    with tempfile.TemporaryDirectory(prefix="espalier-") as scratch:
        given = _Given(
            {port: artifacts.get(digest) for port, digest in digests.items()},
            {port: artifacts.materialise(digest) for port, digest in digests.items()},
            Path(scratch),
        )
        made = given.folders.get("base")
        base = f"path:{made}" if made else anchor_base(spec.base, path.parent)
        yield Job(
            method=method,
            spec=spec.model_copy(update={"base": base}),
            sources=find_sources(given, spec),
            out_dir=Path(scratch) / "out",
            checkpoint_dir=Path(scratch) / "checkpoints",
            cache_dir=context.workspace.cache_folder / "train",
            adapter=given.folders.get("adapter"),
            dataset=digests["dataset"],
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
