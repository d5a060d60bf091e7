"""Step `data.annotate`: rules or a model as an annotator of a dataset, its word as an annotations artifact."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.data.annotation.automatic import AnnotateSpec
from espalier.nn.locate import anchor_base, list_base_files


def _base_files(spec: AnnotateSpec, folder: Path) -> Iterable[Path]:
    return list_base_files(anchor_base(spec.model.base, folder)) if spec.model and spec.model.base else ()


@step(
    "data.annotate",
    version=1,
    spec=AnnotateSpec,
    inputs={"dataset": "dataset", "prompt": "prompt?"},
    outputs={"annotations": "annotations"},
    files=_base_files,
)
def data_annotate(context: StepContext, spec: AnnotateSpec) -> None:
    """Have rules or a model annotate a dataset: ratings, labels or spans, like a person's."""
    from espalier.core.ids import canonical_json
    from espalier.data.annotation.asked import ANNOTATE, annotate_by_model
    from espalier.data.annotation.record import FILE, append_records
    from espalier.data.annotation.rules import annotate_by_rules
    from espalier.data.generate.asking import Asker, Spending
    from espalier.prompts.catalog import read_prompt
    from espalier.services.generation import open_generate, prepare_prompt
    from espalier.store.disk import write_file
    from espalier.store.examples import read_examples
    from espalier.store.journal import Journal

    folder = context.output("annotations")
    dataset = context.inputs["dataset"].digest
    examples = [each for each in read_examples(context.input("dataset")) if each.split in spec.splits]
    if spec.model is None:
        found = annotate_by_rules(examples, dataset, spec)
    else:
        prompt = prepare_prompt(ANNOTATE, read_prompt(context.input("prompt")) if "prompt" in context.inputs else None)
        with open_generate(spec.model) as generate:
            spending, journal = Spending(spec.budget), Journal(context.scratch / "answers.jsonl")
            asker = Asker(generate, spec.model, journal=journal, spending=spending, emit=context.emit)
            found = annotate_by_model(examples, dataset, spec, prompt, asker)
        answers = [{"sha256": digest, **answer.model_dump()} for digest, answer in sorted(asker.answers.items())]
        write_file(folder / "answers.jsonl", b"".join(canonical_json(answer) + b"\n" for answer in answers))
        context.metric("requests", spending.requests)
        context.metric("cost_usd", spending.cost_nusd / 1e9)
    append_records(folder / FILE, found.records)
    refused = (canonical_json({"example": id, "reason": reason}) + b"\n" for id, reason in found.refused.items())
    write_file(folder / "refused.jsonl", b"".join(refused))
    context.metric("annotated", len(found.records))
    context.metric("refused", len(found.refused))
    context.describe("annotations", annotator=spec.name, dataset=dataset)
