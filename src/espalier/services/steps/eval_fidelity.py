"""Step `eval.fidelity`: a quantised base held against its original on a dataset: figures, conditions, a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import Spec
from espalier.core.types.examples import Split
from espalier.evals.fidelity import CONDITIONS
from espalier.nn.locate import anchor_base, list_base_files


class EvalFidelitySpec(Spec):
    """What is compared with what, and what must hold."""

    original: str = Field("builtin:seedling", description="the base that was quantised, where it is now")
    label: str = Field("quantised, against its original", description="how tables name this row")
    split: Split = Field("test", description="which split's answers are predicted")
    limit: int = Field(0, ge=0, description="only so many examples, drawn by seed; 0 = all")
    seed: int = Field(0, ge=0, description="draws the examples")
    conditions: tuple[str, ...] = Field(
        CONDITIONS, min_length=1, description="on perplexity_ratio, agreement, divergence; also their .ci_low, .ci_high"
    )


def list_files(spec: EvalFidelitySpec, folder: Path) -> Iterable[Path]:
    """The original's files."""
    return list_base_files(anchor_base(spec.original, folder))


@step(
    "eval.fidelity",
    version=1,
    spec=EvalFidelitySpec,
    inputs={"base": "base", "original": "base?", "dataset": "dataset"},
    outputs={"report": "report"},
    files=list_files,
)
def eval_fidelity(context: StepContext, spec: EvalFidelitySpec) -> None:
    """Measure how far a quantised base answers as its original, and whether that is enough; kept either way."""
    from espalier.core.errors import DigestMismatch
    from espalier.evals.cases import write_evaluation
    from espalier.evals.fidelity import report_fidelity
    from espalier.evals.gate import judge, write_verdict
    from espalier.evals.run import Subject, draw_examples
    from espalier.nn.base import Dtype, load_base
    from espalier.nn.fidelity import compare_bases
    from espalier.nn.quantisedbase import read_origin
    from espalier.services.bases import name_base
    from espalier.store.examples import read_examples

    place = f"path:{context.input('original')}" if "original" in context.inputs else spec.original
    original = load_base(place, fetch=False)
    origin = read_origin(context.input("base"))
    if origin.get("base_digest") != original.base_digest:
        raise DigestMismatch(
            f"it was made from {origin.get('base')} ({str(origin.get('base_digest'))[:12]}); "
            f"{spec.original} is {original.base_digest[:12]}",
            hint="compare it with the original it was made from",
        )
    dtype: Dtype = "bfloat16" if str(original.dtype) == "torch.bfloat16" else "float32"  # both compute in one type
    quantised = load_base(f"path:{context.input('base')}", fetch=False, dtype=dtype)
    examples = list(read_examples(context.input("dataset"), spec.split))
    if spec.limit:
        examples = draw_examples(examples, spec.limit, spec.seed)
    evaluation = report_fidelity(
        examples,
        compare_bases(original, quantised, examples),
        Subject(name_base(context.inputs["base"].digest), spec.label, context.inputs["dataset"].digest, spec.split),
    )
    write_evaluation(context.output("report"), evaluation)
    verdict = judge(spec.conditions, evaluation)
    write_verdict(context.output("report"), verdict)
    for score in evaluation.report.scores:
        context.metric(score.name, score.value)
    context.describe("report", label=spec.label, passed=str(verdict.passed).lower())
