"""The Arrow record batch that flows through every step, and its way from and to `Document` objects.

A batch holds kept documents only. What is dropped leaves it, with a reason, for the exclusion file.

Legend: n = documents (rows) of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa

from espalier.core.types import Document, Span

SPAN = pa.struct(
    [("blob", pa.string()), ("uri", pa.string()), ("page", pa.int32()), ("start", pa.int64()), ("end", pa.int64())]
)
MESSAGE = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.large_string(), nullable=False),
        pa.field("weight", pa.float64()),
    ]
)
TAGS = pa.map_(pa.string(), pa.string())
# `row` is a table row's fields as one JSON object, empty for what was no row (or where the task needs none).
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("spans", pa.list_(SPAN), nullable=False),
        pa.field("tags", TAGS, nullable=False),
        pa.field("row", pa.large_string(), nullable=False),
        pa.field("messages", pa.list_(MESSAGE), nullable=False),
        pa.field("chosen", pa.list_(MESSAGE), nullable=False),
        pa.field("rejected", pa.list_(MESSAGE), nullable=False),
    ]
)
CONVERSATIONS = ("messages", "chosen", "rejected")


def to_batch(documents: Iterable[Document]) -> pa.RecordBatch:
    """Kept documents as one batch (n rows); dropped ones are for the caller to report."""
    rows = [
        {
            "id": document.id,
            "text": document.text,
            "spans": [
                {"blob": span.blob, "uri": span.uri, "page": span.page, "start": span.start, "end": span.end}
                for span in document.spans
            ],
            "tags": sorted(document.tags.items()),
            "row": "",
            "messages": [],
            "chosen": [],
            "rejected": [],
        }
        for document in documents
    ]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def to_documents(batch: pa.RecordBatch) -> Iterator[Document]:
    """The rows as documents, without their conversations."""
    for row in batch.select(["id", "text", "spans", "tags"]).to_pylist():
        first, *rest = [Span(**span) for span in row["spans"]]
        yield Document(row["id"], row["text"], first, dict(row["tags"]), continued=tuple(rest))


def tag_column(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    """The value of one tag for each row, null where a row has none. (n,)"""
    found: list[str | None] = [dict(tags).get(name) for tags in batch.column("tags").to_pylist()]
    return pa.array(found, pa.string())


def set_tags(batch: pa.RecordBatch, columns: Mapping[str, pa.StringArray]) -> pa.RecordBatch:
    """The batch with tags set from columns (n,); a null leaves that row's tag as it was."""
    if not columns:
        return batch
    rows = [dict(tags) for tags in batch.column("tags").to_pylist()]
    for name, column in columns.items():
        for row, value in zip(rows, column.to_pylist(), strict=True):
            if value is not None:
                row[name] = value
    return set_column(batch, "tags", pa.array([sorted(row.items()) for row in rows], TAGS))


def set_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """The batch with column `name` replaced (n,)."""
    return batch.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
