"""Step `train.create`: a tokenizer and a model from scratch."""

from __future__ import annotations

from dataclasses import asdict

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.train.recipe import CreateSpec


@step("train.create", version=1, spec=CreateSpec, inputs={"dataset": "dataset"}, outputs={"base": "base"})
def train_create(context: StepContext, spec: CreateSpec) -> None:
    """Train a tokenizer and a base model from scratch; resumes from its last checkpoint after a crash."""
    from espalier.train.methods.create import create

    result = create(
        spec, context.input("dataset"), context.output("base"), checkpoint_dir=context.scratch, emit=context.emit
    )
    for name, value in asdict(result).items():
        if isinstance(value, int | float):
            context.metric(name, value)
