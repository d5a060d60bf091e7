"""Generated rows as the folder of a dataset version (`data/derived.py`), and two files more:

provenance.jsonl    every row, kept or refused: parents, prompt, model, sampling, digest of the answer, verdict, reason
answers.jsonl       the raw answers by their sha256: what was recorded, to be read again
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.core.types import Example, Generation
from espalier.data.derived import Derivation, Exclusion, write_derived
from espalier.data.generate.generate import count_drops
from espalier.data.generate.row import Row, describe_example, inherit_tags, kept_examples
from espalier.data.generate.spec import CritiqueMethod, GenerateSpec
from espalier.data.layout import read_documents
from espalier.data.manifest import DatasetManifest, StepReport
from espalier.store.disk import write_file

PROVENANCE = "provenance.jsonl"
ANSWERS = "answers.jsonl"
STEP = "generate@1"


def write_generated(
    folder: Path,
    source: tuple[Path, str],
    examples: Sequence[Example],
    rows: Sequence[Row],
    answers: Mapping[str, Generation],
    spec: GenerateSpec,
) -> DatasetManifest:
    """Write the version. The same rows and answers give the same bytes.

    source: the input dataset's folder, and the digest of its artifact. examples: all of the input's.
    """
    _write_lines(folder / PROVENANCE, (row.to_json() for row in rows))
    _write_lines(folder / ANSWERS, ({"sha256": digest, **answers[digest].model_dump()} for digest in sorted(answers)))
    made = sum(row.kept for row in rows)
    report = StepReport(
        step=STEP,
        parameters=spec.model_dump(mode="json", exclude={"name", "description", "licence", "answers"}),
        documents_in=len(rows),
        documents_out=made,
        drops=count_drops(rows),
        counts={"kept": made, "refused": len(rows) - made},
    )
    derivation = Derivation(
        name=spec.name,
        description=spec.description,
        licence=spec.licence,
        source=source[0],
        digest=source[1],
        task=f"generate.{spec.method.kind}",
        report=report,
        exclusions=[_exclude(row) for row in rows if row.refused_because],
    )
    return write_derived(folder, _gather(examples, rows, spec), derivation)


def _gather(examples: Sequence[Example], rows: Sequence[Row], spec: GenerateSpec) -> list[Example]:
    """Those made, after the input's where it is kept; of a critique, the input without what it refused."""
    kept = kept_examples(rows)
    if not isinstance(spec.method, CritiqueMethod):
        return [*(examples if spec.keep_input else ()), *kept]
    judged, by_id = {row.example.id for row in rows if row.example}, {example.id: example for example in kept}
    return [by_id.get(each.id, each) for each in examples if each.id in by_id or each.id not in judged]


def read_passages(folder: Path, examples: Sequence[Example]) -> list[Example]:
    """The documents a version was made from as examples of raw text, in the order of its examples; each in the split
    and the group of the first example made from it. Raises NotFound when the version holds no documents."""
    first: dict[str, Example] = {}
    for example in examples:
        for id in example.documents:
            first.setdefault(id, example)
    texts = {document.id: document.text for document in read_documents(folder, list(first))}
    return [
        Example(id, text=texts[id], split=example.split, documents=[id], tags=inherit_tags(example))
        for id, example in first.items()
        if id in texts
    ]


def _exclude(row: Row) -> Exclusion:
    example = row.example
    text = describe_example(example) if example else ""
    return Exclusion(example.id if example else "", row.origin.parents, row.refused_because, text)


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    write_file(path, "".join(lines).encode())
