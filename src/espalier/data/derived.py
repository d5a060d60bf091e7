"""A dataset version made from another one, example by example: by a model, by annotations.

Its folder is laid out as any version's. The documents of the version it was made from come along, so that an example
still leads to its file and page; so do the terms of use. Knows no step that makes examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from espalier.core.types import Example
from espalier.data.answers import count_labels
from espalier.data.layout import read_documents, write_exclusions, write_manifest
from espalier.data.manifest import FILE, DatasetManifest, SourceEntry, StepReport, distribute, read_manifest
from espalier.store.disk import storage_errors
from espalier.store.examples import SPLITS, count_examples, write_examples


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A row that was left out: what it says, of which examples it was made, and why it is not there."""

    id: str
    parents: tuple[str, ...]
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a derived version says of itself. `source` is the folder and `digest` the artifact it was made from."""

    name: str
    description: str
    licence: str
    source: Path
    digest: str
    task: str  # "generate.questions", "annotated"
    report: StepReport
    exclusions: Sequence[Exclusion] = field(default_factory=tuple)


def write_derived(folder: Path, examples: Sequence[Example], made: Derivation) -> DatasetManifest:
    """Write the version; the manifest comes last. The same examples and facts give the same bytes."""
    for split in SPLITS:
        write_examples(folder / "data" / f"{split}-00000.parquet", (row for row in examples if row.split == split))
    copy_documents(made.source, folder)
    write_exclusions(folder, (_exclude(row, made) for row in made.exclusions), ())
    manifest = _describe(examples, made)
    write_manifest(folder, manifest)
    return manifest


def copy_documents(source: Path, folder: Path) -> None:
    """The documents of a version, each with its text in place: examples they could share it with may be gone."""
    for path in sorted(source.glob("documents*.parquet")):
        table = pq.read_table(path)
        texts = {document.id: document.text for document in read_documents(source, table["id"].to_pylist())}
        whole = pa.array([texts[id] for id in table["id"].to_pylist()], pa.large_string())
        at = table.schema.get_field_index("text")
        with storage_errors(folder):
            pq.write_table(table.set_column(at, table.schema.field(at).with_type(pa.large_string()), whole),
                           folder / path.name, compression="zstd")  # fmt: skip


def _exclude(row: Exclusion, made: Derivation) -> dict[str, Any]:
    return {
        "id": row.id,
        "uri": "".join(f"example:{parent}" for parent in row.parents[:1]),
        "blob": made.digest,
        "page": 1,
        "start": 0,
        "end": 0,
        "step": made.report.step,
        "reason": row.reason,
        "text": row.text,
    }


def _describe(examples: Sequence[Example], made: Derivation) -> DatasetManifest:
    texts = ["\n".join([*(turn.content for turn in row.messages), row.text]).strip() for row in examples]
    report, source = made.report, _read_source(made.source)
    return DatasetManifest(
        name=made.name,
        description=made.description,
        licence=made.licence or (source.licence if source else ""),
        licences=source.licences if source else {},
        examples=len(examples),
        splits={split: sum(row.split == split for row in examples) for split in SPLITS},
        documents_read=report.documents_in,
        documents_kept=report.documents_out,
        drops=report.drops,
        redactions={},
        labels=count_labels(row.messages[-1].content for row in examples if row.messages),
        formats={},
        languages=dict(sorted(Counter(row.tags["language"] for row in examples if "language" in row.tags).items())),
        chars=distribute(map(len, texts)),
        words=distribute(len(text.split()) for text in texts),
        steps=(report,),
        sources=(SourceEntry(uri=f"sha256:{made.digest}", sha256=made.digest, documents=count_examples(made.source)),),
        skipped=(),
        task={"kind": made.task},
        split={},
    )


def _read_source(folder: Path) -> DatasetManifest | None:
    """The manifest of the version this one is made from; an artifact that another tool made may have none."""
    return read_manifest(folder) if (folder / FILE).is_file() else None
