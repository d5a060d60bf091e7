"""Step `train.sft`: a LoRA adapter on the answers of a dataset, asked through a prompt version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.nn.locate import anchor_base, list_base_files
from espalier.train.recipe import SftSpec


class TrainSftSpec(SftSpec):
    """What to tune, and how: every field of `espalier train`."""

    base: str = Field("builtin:seedling", description="builtin:NAME, path:DIR or hf:OWNER/NAME")
    threads: int = Field(0, ge=0, description="CPU threads; 0 = all cores")


def _base_files(spec: TrainSftSpec, folder: Path) -> Iterable[Path]:
    return list_base_files(anchor_base(spec.base, folder))


@step(
    "train.sft",
    version=1,
    spec=TrainSftSpec,
    inputs={"dataset": "dataset", "prompt": "prompt?"},
    outputs={"adapter": "adapter"},
    files=_base_files,
)
def train_sft(context: StepContext, spec: TrainSftSpec) -> None:
    """Tune a LoRA adapter on a base model; resumes from its last checkpoint after a crash."""
    from espalier.nn.base import load_base
    from espalier.prompts.catalog import read_prompt
    from espalier.services.rendering import render_dataset
    from espalier.train.methods.sft import sft

    prompt = read_prompt(context.input("prompt")) if "prompt" in context.inputs else None
    dataset = render_dataset(context.input("dataset"), prompt, context.scratch / "rendered")
    base = load_base(spec.base, dtype="float32", threads=spec.threads)
    recipe = SftSpec.model_validate(spec.model_dump(exclude={"base", "threads"}))
    result = sft(
        recipe,
        base,
        dataset,
        context.output("adapter"),
        checkpoint_dir=context.scratch / "checkpoints",
        emit=context.emit,
    )
    for name, value in asdict(result).items():
        if isinstance(value, int | float):
            context.metric(name, value)
    context.describe("adapter", base=spec.base, base_digest=base.base_digest)
