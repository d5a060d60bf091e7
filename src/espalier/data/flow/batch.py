"""The Arrow record batch that flows through every step, and its way from and to `Document` objects.

A batch holds kept documents only. What is dropped leaves it, with a reason, for the exclusion file.

Legend: n = documents (rows) of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    return pc.map_lookup(batch.column("tags"), pa.scalar(name), "first")


def set_tags(batch: pa.RecordBatch, columns: Mapping[str, pa.StringArray]) -> pa.RecordBatch:
    """The batch with tags set from columns (n,); a null leaves that row's tag. Tags stand in order."""
    tags = batch.column("tags")
    for name, column in columns.items():
        tags = _set_tag(tags, name, column)
    return batch if not columns else set_column(batch, "tags", tags)


def _set_tag(tags: pa.MapArray, name: str, column: pa.StringArray) -> pa.MapArray:
    offsets = np.asarray(tags.offsets)
    first, last = offsets[0], offsets[-1]
    offsets = offsets - first
    keys, values = tags.keys.slice(first, last - first), tags.items.slice(first, last - first)
    # How many keys of each row come before the new one, and whether the next one is the same.
    before = np.concatenate([[0], np.cumsum(pc.less(keys, name).to_numpy(zero_copy_only=False))])
    place = offsets[:-1] + before[offsets[1:]] - before[offsets[:-1]]
    same = np.append(pc.equal(keys, name).to_numpy(zero_copy_only=False), False)
    known = same[place] & (place < offsets[1:])
    given = column.is_valid().to_numpy(zero_copy_only=False)
    old = len(keys)
    chosen = np.arange(old)
    chosen[place[known & given]] = old + np.flatnonzero(known & given)
    added = given & ~known
    chosen = np.insert(chosen, place[added], old + np.flatnonzero(added))
    key_of = np.minimum(chosen, old)
    made = pa.MapArray.from_arrays(
        pa.array(offsets + np.concatenate([[0], np.cumsum(added)]), pa.int32()),
        pa.concat_arrays([keys, pa.array([name], pa.string())]).take(pa.array(key_of)),
        pa.concat_arrays([values, column.cast(pa.string())]).take(pa.array(chosen)),
    )
    return made.cast(TAGS)


def set_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """The batch with column `name` replaced (n,)."""
    at = batch.schema.get_field_index(name)
    return batch.set_column(at, batch.schema.field(at), column)
