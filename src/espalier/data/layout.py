"""How a dataset version lies on disk, and how it is read back.

manifest.json            DatasetManifest
card.md                  the same for people
data/train-00000.parquet ...    examples (espalier.store.examples), one file a split
documents.parquet        the kept documents: text, spans to files and pages, tags, group, split
exclusions.jsonl         every document and file that was left out: where it stands, at which step, why; no text
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from espalier.core.errors import NotFound
from espalier.core.types import Document, Span
from espalier.core.types.examples import Split
from espalier.data.answers import count_labels
from espalier.data.card import write_card
from espalier.data.draft import Draft
from espalier.data.manifest import FILE, DatasetManifest, SourceEntry, count_reasons, distribute
from espalier.store.disk import new_file, write_file
from espalier.store.examples import SPLITS, read_examples, write_examples

DOCUMENTS = "documents.parquet"
EXCLUSIONS = "exclusions.jsonl"
_SPAN = pa.struct(
    [("blob", pa.string()), ("uri", pa.string()), ("page", pa.int32()), ("start", pa.int64()), ("end", pa.int64())]
)
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("spans", pa.list_(_SPAN), nullable=False),
        pa.field("tags", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)


def write_dataset(draft: Draft, out_dir: Path) -> DatasetManifest:
    """Write the folder; the manifest comes last, so a folder with a manifest is complete."""
    for split in SPLITS:
        chosen = [example for example in draft.examples if example.split == split]
        write_examples(out_dir / "data" / f"{split}-00000.parquet", chosen)
    _write_documents(draft, out_dir / DOCUMENTS)
    lines = (json.dumps(row, ensure_ascii=False, sort_keys=True) for row in list_exclusions(draft))
    write_file(out_dir / EXCLUSIONS, "".join(f"{line}\n" for line in lines).encode())
    manifest = describe_draft(draft)
    write_file(out_dir / "card.md", write_card(manifest).encode())
    write_file(out_dir / FILE, manifest.to_bytes())
    return manifest


def describe_draft(draft: Draft) -> DatasetManifest:
    """The manifest of a finished draft."""
    spec, examples = draft.spec, draft.examples
    texts = ["\n".join([*(turn.content for turn in example.messages), example.text]).strip() for example in examples]
    per_file = Counter(document.span.uri for document in draft.documents)
    redactions: Counter[str] = Counter()
    for report in draft.reports:
        if report.step.startswith("redact@"):
            redactions.update(report.counts)
    strata: dict[str, Counter[str]] = defaultdict(Counter)
    for example, stratum in zip(examples, draft.strata, strict=True):
        strata[stratum][example.split] += 1
    return DatasetManifest(
        name=spec.name,
        description=spec.description,
        licence=spec.licence,
        examples=len(examples),
        splits={split: sum(example.split == split for example in examples) for split in SPLITS},
        documents_read=len(draft.documents),
        documents_kept=len(draft.kept),
        drops=count_reasons(draft.documents),
        redactions=dict(sorted(redactions.items())),
        labels=count_labels(example.messages[-1].content for example in examples if example.messages),
        labels_unused=len(draft.labels.answers) - len(draft.labels.used) if draft.labels else 0,
        formats=dict(sorted(Counter(document.tags.get("format", "") for document in draft.kept).items())),
        strata={name: dict(sorted(count.items())) for name, count in sorted(strata.items())}
        if spec.split.stratify_by
        else {},
        chars=distribute(map(len, texts)),
        words=distribute(len(text.split()) for text in texts),
        steps=tuple(draft.reports),
        sources=tuple(SourceEntry(uri=s.uri, sha256=s.sha256, documents=per_file[s.uri]) for s in draft.sources),
        skipped=tuple(draft.skipped),
        task=spec.task.model_dump(mode="json"),
        split=spec.split.model_dump(mode="json"),
    )


def list_exclusions(draft: Draft) -> Iterator[dict[str, Any]]:
    """Skipped files, then dropped documents in reading order."""
    for item in draft.skipped:
        yield {"uri": item.uri, "step": "read@1", "reason": item.reason}
    for document in draft.documents:
        if document.dropped_because:
            yield {
                "id": document.id,
                "uri": document.span.uri,
                "blob": document.span.blob,
                "page": document.span.page,
                "start": document.span.start,
                "end": document.span.end,
                "step": draft.dropped_at.get(document.id, ""),
                "reason": document.dropped_because,
            }


def read_documents(folder: Path, ids: Iterable[str] | None = None) -> Iterator[Document]:
    """The kept documents of a dataset version, all or those asked for: from an example's `documents` to file and page.

    Raises NotFound when the folder holds no dataset.
    """
    path = folder / DOCUMENTS
    if not path.is_file():
        raise NotFound(f"no documents in {folder}", hint=f"a dataset's folder holds {DOCUMENTS}")
    wanted = None if ids is None else list(ids)
    table = pq.read_table(path, filters=None if wanted is None else [("id", "in", wanted)])
    for row in table.to_pylist():
        first, *rest = [Span(**span) for span in row["spans"]]
        yield Document(row["id"], row["text"], first, dict(row["tags"]), continued=tuple(rest))


def read_assignments(folder: Path) -> dict[str, Split]:
    """group -> split of a dataset version: what the next version is given as `previous`."""
    return {example.tags["group"]: example.split for example in read_examples(folder) if "group" in example.tags}


def _write_documents(draft: Draft, path: Path) -> None:
    placed = {example.documents[0]: example for example in draft.examples}
    rows = [
        {
            "id": document.id,
            "text": document.text,
            "spans": [
                {"blob": span.blob, "uri": span.uri, "page": span.page, "start": span.start, "end": span.end}
                for span in document.spans
            ],
            "tags": sorted(document.tags.items()),
            "group": placed[document.id].tags["group"],
            "split": placed[document.id].split,
        }
        for document in draft.kept
    ]
    with new_file(path) as descriptor, os.fdopen(os.dup(descriptor), "wb") as stream:
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), stream, compression="zstd")
