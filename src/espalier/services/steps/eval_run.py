"""Step `eval.run`: a model, with a prompt version, scored case by case on one split of a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import SamplingSpec, Spec
from espalier.core.types.examples import Split
from espalier.metrics.metric import MetricSpec
from espalier.nn.locate import anchor_base, list_base_files
from espalier.services.measuring import list_metric_files, open_metrics


class EvalRunSpec(Spec):
    """Who is asked, what, and how the answers are measured."""

    label: str = Field(description="how tables name this row, e.g. 'base, few-shot'")
    metrics: tuple[MetricSpec, ...] = Field(min_length=1, description="metrics by name, with their options")
    base: str = Field("builtin:seedling", description="builtin:NAME, path:DIR or hf:OWNER/NAME")
    split: Split = Field("test", description="which split to ask")
    shots: int = Field(0, ge=0, description="solved examples shown before each question, from the train split")
    limit: int = Field(0, ge=0, description="ask only so many cases, drawn by seed; 0 = all")
    labels: bool = Field(False, description="the references are labels: macro-F1 and confusions too, in labels.json")
    sampling: SamplingSpec = SamplingSpec()
    batch: int = Field(64, ge=1, description="questions asked together")
    seed: int = Field(0, ge=0, description="draws the shots and the cases")
    threads: int = Field(0, ge=0, description="CPU threads; 0 = all cores")


def _files(spec: EvalRunSpec, folder: Path) -> Iterable[Path]:
    return [*list_base_files(anchor_base(spec.base, folder)), *list_metric_files(spec.metrics, folder)]


@step(
    "eval.run",
    version=1,
    spec=EvalRunSpec,
    inputs={"dataset": "dataset", "prompt": "prompt?", "adapter": "adapter?", "base": "base?"},
    outputs={"report": "report"},
    files=_files,
)
def eval_run(context: StepContext, spec: EvalRunSpec) -> None:
    """Score a base or an adapter on one split of a dataset, with intervals."""
    from espalier.evals.cases import write_evaluation
    from espalier.evals.labels import measure_labels, write_labels
    from espalier.evals.run import Subject, ask_as_written, draw_examples, evaluate
    from espalier.prompts.catalog import read_prompt
    from espalier.prompts.template import render_case
    from espalier.services.answering import open_model
    from espalier.services.bases import name_base
    from espalier.store.examples import read_examples

    dataset = context.input("dataset")
    cases = list(read_examples(dataset, spec.split))
    if spec.limit:
        cases = draw_examples(cases, spec.limit, spec.seed)
    shots = draw_examples(read_examples(dataset, "train"), spec.shots, spec.seed) if spec.shots else []
    prompt = read_prompt(context.input("prompt")) if "prompt" in context.inputs else None
    adapter, made = context.inputs.get("adapter"), context.inputs.get("base")
    base = name_base(made.digest) if made else spec.base
    subject = Subject(
        subject=f"adapter:{adapter.digest}" if adapter else base,
        label=spec.label,
        dataset=context.inputs["dataset"].digest,
        split=spec.split,
        prompt=context.inputs["prompt"].digest if prompt else "",
    )
    with (
        open_metrics(spec.metrics) as metrics,
        open_model(
            f"path:{context.input('base')}" if made else spec.base,
            adapter=context.input("adapter") if adapter else None,
            batch=spec.batch,
            threads=spec.threads,
        ) as generate,
    ):
        evaluation = evaluate(
            cases,
            generate,
            metrics,
            subject,
            render=ask_as_written if prompt is None else lambda case, shown: render_case(prompt, case, shown),
            shots=shots,
            sampling=spec.sampling,
            batch_size=spec.batch,
            journal=context.scratch / "answers.jsonl",
            emit=context.emit,
        )
    write_evaluation(context.output("report"), evaluation)
    for score in evaluation.report.scores:
        context.metric(score.name, score.value)
    if spec.labels:
        told = measure_labels(evaluation.cases)
        write_labels(context.output("report"), told)
        context.metric("macro_f1", told.macro_f1.value)
    context.describe("report", label=spec.label)
