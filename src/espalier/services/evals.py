"""Evaluations: score a base or a model version on a dataset's held-out split, show a report, compare several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import EvalReport, Run, Spec

if TYPE_CHECKING:
    from espalier.evals.cases import Evaluation
    from espalier.services.context import Context


class RunEvaluation(Spec):
    """Which recipe, on which data, of which model."""

    recipe: str = Field(description="YAML file: label, metrics, base, split, shots ... (see `config schema eval`)")
    dataset: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    prompt: str = Field("", description="prompt:NAME@vN; empty = the questions as the dataset holds them")
    model: str = Field("", description="model:NAME@vN that is asked; empty = the base alone")


@operation("evals.run", "POST /v1/evals/run", shape="job", positional=("recipe",), role="admin")
def run(context: Context, request: RunEvaluation) -> Run:
    """Score a model on a held-out split, every figure with its 95 % interval.

    Answers are journalled as they come: a killed evaluation asks nothing twice.

    Example:
        espalier eval eval.yaml --dataset support --model support@v1
    """
    from espalier.core.recipefile import load_recipe
    from espalier.core.refs import Ref
    from espalier.services.bases import list_parts
    from espalier.services.execution import execute_step
    from espalier.services.steps.eval_run import EvalRunSpec

    path = context.place(request.recipe)
    inputs = {"dataset": str(Ref.parse(request.dataset, kind="dataset"))}
    if request.prompt:
        inputs["prompt"] = str(Ref.parse(request.prompt, kind="prompt"))
    if request.model:
        inputs |= list_parts(context.store, str(Ref.parse(request.model, kind="model")))
    spec = load_recipe(path, EvalRunSpec)
    return execute_step(context, "eval.run", spec, name=path.stem, folder=path.parent, inputs=inputs)


class ShowEvaluation(Spec):
    """Which report to show, and which of its cases."""

    report: str = Field(description="digest of a report (12 characters do), or the id of the run that made it")
    cases: int = Field(0, ge=0, le=1000, description="show so many cases, the worst first")


class EvaluationView(Spec):
    """A report and some of the cases it rests on."""

    digest: str
    report: EvalReport
    cases: tuple[dict[str, Any], ...]
    labels: dict[str, Any] | None = Field(None, description="macro-F1, each label and confusions; of `labels: true`")


@operation("evals.show", "GET /v1/evals/{report}", positional=("report",))
def show(context: Context, request: ShowEvaluation) -> EvaluationView:
    """Show an evaluation report, checked against its cases.

    Example:
        espalier evals show 3fb1c2a4d5e6 --cases 3
    """
    from dataclasses import asdict

    from espalier.evals.labels import LABELS_FILE, read_labels

    digest = find_report(context, request.report)
    evaluation = _read(context, digest)
    worst = sorted(evaluation.cases, key=lambda case: sum(case.values.values()))[: request.cases]
    folder = context.store.artifacts.materialise(digest)
    labels = asdict(read_labels(folder)) if (folder / LABELS_FILE).is_file() else None
    cases = tuple(asdict(case) for case in worst)
    return EvaluationView(digest=digest, report=evaluation.report, cases=cases, labels=labels)


class CompareEvaluations(Spec):
    """Which reports to lay side by side; the first is the baseline."""

    reports: tuple[str, ...] = Field(min_length=2, description="digests or run ids of reports on the same cases")


class ComparisonView(Spec):
    """The table, as data and as Markdown."""

    markdown: str
    comparison: dict[str, Any]


@operation("evals.compare", "POST /v1/evals/compare", positional=("reports",))
def compare(context: Context, request: CompareEvaluations) -> ComparisonView:
    """Compare evaluations of the same cases, case by case, with the intervals of the differences.

    Example:
        espalier evals compare run_1hq... run_1hr...
    """
    from espalier.evals.compare import compare as pair
    from espalier.evals.table import render_markdown

    comparison = pair([_read(context, find_report(context, report)) for report in request.reports])
    return ComparisonView(markdown=render_markdown(comparison), comparison=comparison.model_dump(mode="json"))


class NameComparison(Spec):
    """Whose table."""

    run: str = Field(description="id of a pipeline's run that has an eval.compare step")


class TableView(Spec):
    """A comparison as text: `columns` are headings, each row as many cells. Empty when the run made none (yet)."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    caption: str = ""


@operation("evals.table", "GET /v1/runs/{run}/comparison", positional=("run",))
def table(context: Context, request: NameComparison) -> TableView:
    """Show the before/after table of a pipeline's run."""
    from espalier.evals.compare import COMPARISON_FILE, Comparison
    from espalier.evals.table import caption, lay_out

    store = context.store
    for step in store.runs.list(parent=request.run, step="eval.compare@1", status="succeeded", limit=1):
        folder = store.artifacts.materialise(step.outputs["comparison"])
        comparison = Comparison.model_validate_json((folder / COMPARISON_FILE).read_bytes())
        columns, rows = lay_out(comparison)
        return TableView(columns=tuple(columns), rows=tuple(map(tuple, rows)), caption=caption(comparison))
    return TableView()


def find_report(context: Context, text: str) -> str:
    """The digest of a report named by a digest, the start of one, or a run. Raises NotFound."""
    from espalier.core.errors import NotFound

    store = context.store
    if text.startswith("run_"):
        outputs = store.runs.get(text).outputs
        for port, digest in outputs.items():
            if port.rsplit(".", 1)[-1] == "report":
                return digest
        raise NotFound(f"{text} made no report", hint="name the run of an eval.run step")
    for run in store.runs.list(step="eval.run@1", status="succeeded", limit=1000):
        digest = run.outputs.get("report", "")
        if digest.startswith(text) and len(text) >= 8:
            return digest
    raise NotFound(f"no report {text!r}", hint="`espalier runs list --step eval.run@1` shows the runs that made one")


def _read(context: Context, digest: str) -> Evaluation:
    from espalier.evals.cases import read_evaluation

    return read_evaluation(context.store.artifacts.materialise(digest))
