"""A judge over rows: a model scores each by a rubric, and what is below the threshold is refused with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from espalier.core.types import Example, SamplingSpec
from espalier.data.generate.asking import Asker
from espalier.data.generate.forms import Verdict
from espalier.data.generate.row import CRITIQUE, Judgement, Origin, Row, describe_example
from espalier.data.generate.spec import JudgeSpec
from espalier.data.generate.templates import PromptVersion


def judge_rows(rows: Sequence[Row], spec: JudgeSpec, prompt: PromptVersion, asker: Asker) -> None:
    """Score the kept rows and refuse those below the threshold; a row whose verdict cannot be read is refused too."""
    judged = [(row, row.example) for row in rows if row.kept and row.example is not None]
    asked = [prompt.fill(_variables(example, row.source, spec)) for row, example in judged]

    def check(verdict: Verdict) -> str:
        return "" if verdict.score <= spec.scale else f"score {verdict.score} is above {spec.scale}"

    filled = asker.fill(asked, spec.sampling, Verdict, check=check, what="verdicts")
    for (row, _), answered in zip(judged, filled, strict=True):
        if answered.form is None:
            row.refused_because = f"no verdict: {answered.reason}"
            continue
        verdict = answered.form
        row.judgement = Judgement(verdict.score, verdict.reason, prompt, asker.subject, answered.reply.digest)
        if verdict.score < spec.threshold:
            row.refused_because = f"judged below {spec.threshold}: {verdict.score} of {spec.scale}, {verdict.reason}"


def take_rows(examples: Sequence[Example], prompt: PromptVersion, asker: Asker, sampling: SamplingSpec) -> list[Row]:
    """Examples that are there already, as rows for a judge: nothing was asked for them yet."""
    return [Row(Origin(CRITIQUE, (example.id,), prompt, asker.subject, sampling), example) for example in examples]


def _variables(example: Example, source: str, spec: JudgeSpec) -> dict[str, str]:
    return {
        "input": describe_example(example),
        "source": source,
        "rubric": spec.rubric,
        "scale": str(spec.scale),
    }
