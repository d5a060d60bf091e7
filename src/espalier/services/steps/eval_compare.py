"""Step `eval.compare`: before and after in one table, with paired differences."""

from __future__ import annotations

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import Spec


class EvalCompareSpec(Spec):
    """How the table is shown."""

    parts: bool = Field(False, description="also the rows that break a metric down")


@step(
    "eval.compare",
    version=1,
    spec=EvalCompareSpec,
    inputs={"baseline": "report", "second": "report?", "candidate": "report"},
    outputs={"comparison": "comparison"},
)
def eval_compare(context: StepContext, spec: EvalCompareSpec) -> None:
    """Pair evaluations of the same cases: scores, differences and their intervals."""
    from espalier.evals.cases import read_evaluation
    from espalier.evals.compare import compare, write_comparison
    from espalier.evals.table import render_markdown

    names = [name for name in ("baseline", "second", "candidate") if name in context.inputs]
    comparison = compare([read_evaluation(context.input(name)) for name in names])
    folder = context.output("comparison")
    write_comparison(folder, comparison)
    (folder / "comparison.md").write_text(render_markdown(comparison, parts=spec.parts), "utf-8")
