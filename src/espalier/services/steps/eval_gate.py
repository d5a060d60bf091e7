"""Step `eval.gate`: refuse a candidate that does not meet its conditions, clause by clause."""

from __future__ import annotations

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import Spec


class EvalGateSpec(Spec):
    """What the candidate must reach."""

    conditions: tuple[str, ...] = Field(
        min_length=1, description="e.g. `xml_valid.ci_low >= 0.9` or `xml_fields - baseline >= 0.3`"
    )


@step(
    "eval.gate",
    version=1,
    spec=EvalGateSpec,
    inputs={"candidate": "report", "baseline": "report?"},
    outputs={"verdict": "verdict"},
)
def eval_gate(context: StepContext, spec: EvalGateSpec) -> None:
    """Hold a candidate's report against conditions; a failed one stops the pipeline here."""
    from espalier.evals.cases import read_evaluation
    from espalier.evals.gate import judge, require, write_verdict

    baseline = read_evaluation(context.input("baseline")) if "baseline" in context.inputs else None
    verdict = judge(spec.conditions, read_evaluation(context.input("candidate")), baseline)
    write_verdict(context.output("verdict"), verdict)
    require(verdict)
