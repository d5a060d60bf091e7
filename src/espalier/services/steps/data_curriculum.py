"""Step `data.curriculum`: made-up pretraining text that teaches a small base to copy, to fill formats and to label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import Spec
from espalier.data.synth.curriculum import CurriculumSpec

_VALIDATION_SEED = 999  # far from any seed a recipe would pick, so no validation row is trained on


class DataCurriculumSpec(Spec):
    """How much to make, and which folders of real English to mix in."""

    train: CurriculumSpec = CurriculumSpec()
    validation_examples: int = Field(3000, ge=1)
    corpora: tuple[Path, ...] = Field(
        (), description="folders of permissively licensed text; empty = made-up text only"
    )


def _corpus_files(spec: DataCurriculumSpec, folder: Path) -> Iterable[Path]:
    return spec.corpora


@step(
    "data.curriculum", version=1, spec=DataCurriculumSpec, outputs={"dataset": "dataset"}, files=_corpus_files
)  # fmt: skip
def data_curriculum(context: StepContext, spec: DataCurriculumSpec) -> None:
    """Make up a pretraining curriculum from a seed."""
    from espalier.data.synth.curriculum import generate_curriculum
    from espalier.store.examples import write_examples

    folder = context.output("dataset")
    count = write_examples(folder / "data" / "train-00000.parquet", generate_curriculum(spec.train, spec.corpora))
    held_out = spec.train.model_copy(update={"seed": _VALIDATION_SEED, "examples": spec.validation_examples})
    examples = (replace(example, split="validation") for example in generate_curriculum(held_out, spec.corpora))
    write_examples(folder / "data" / "validation-00000.parquet", examples)
    context.metric("examples", count)
