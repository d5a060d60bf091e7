"""Step `data.apply_annotations`: a dataset version made by its annotators' word."""

from __future__ import annotations

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.data.annotation.apply import ApplySpec


@step(
    "data.apply_annotations",
    version=1,
    spec=ApplySpec,
    inputs={"dataset": "dataset", "annotations": "annotations"},
    outputs={"dataset": "dataset"},
)
def data_apply(context: StepContext, spec: ApplySpec) -> None:
    """Mend answers, leave out poor rows and tag labels by what annotators said."""
    from espalier.core.errors import InvalidInput
    from espalier.data.annotation.apply import apply_annotations
    from espalier.data.annotation.record import read_records
    from espalier.data.derived import Derivation, write_derived
    from espalier.data.manifest import StepReport, name_reason
    from espalier.store.examples import read_examples

    source = context.input("dataset")
    examples = list(read_examples(source))
    found = apply_annotations(examples, read_records(context.input("annotations")), spec)
    if not found.examples:
        raise InvalidInput("no row is left", hint="lower least_rating, or keep rows that nobody annotated")
    drops: dict[str, int] = {}
    for row in found.exclusions:
        drops[name_reason(row.reason)] = drops.get(name_reason(row.reason), 0) + 1
    report = StepReport(
        step="apply_annotations@1",
        parameters=spec.model_dump(mode="json", exclude={"name", "description", "licence"}),
        documents_in=len(examples),
        documents_out=len(found.examples),
        drops=dict(sorted(drops.items())),
        counts=dict(sorted(found.counts.items())),
    )
    derivation = Derivation(
        name=spec.name,
        description=spec.description,
        licence=spec.licence,
        source=source,
        digest=context.inputs["dataset"].digest,
        task="annotated",
        report=report,
        exclusions=found.exclusions,
    )
    write_derived(context.output("dataset"), found.examples, derivation)
    context.metric("examples", len(found.examples))
    for name, count in sorted(found.counts.items()):
        context.metric(name, count)
    context.describe("dataset", name=spec.name)
