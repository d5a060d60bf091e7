"""Outcomes on disk: a step's checkpoint for one shard, and the rows it dropped.

KEY.arrow      the columns that changed, (n,) each, and a note of the figures
KEY.rows       the rows made anew, when the step made some
KEY.dropped    what was dropped: where it stands, why, and its text as it was then (redaction comes after, in `chain`)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from espalier.data.flow.batch import CONVERSATIONS
from espalier.data.flow.files import BatchFile, open_batches, save_batch
from espalier.data.flow.outcome import Outcome

DROPPED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("blob", pa.string(), nullable=False),
        pa.field("page", pa.int32(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
    ]
)
_PARENTS = "parents"


def save_outcome(path: Path, outcome: Outcome, dropped: pa.RecordBatch | None, note: dict[str, Any]) -> None:
    """Write an outcome; the file under `path` itself comes last, so where it is, all is."""
    if dropped is not None:
        save_batch(path.with_suffix(".dropped"), dropped)
    if outcome.batch is not None:
        save_batch(path.with_suffix(".rows"), outcome.batch.append_column(_PARENTS, outcome.parents))
    columns: dict[str, pa.Array] = {}
    if outcome.texts is not None:
        columns["texts"] = outcome.texts
    if outcome.reasons is not None:
        columns["reasons"] = outcome.reasons
    if outcome.rows is not None:
        columns["rows"] = outcome.rows
    columns |= {f"tag:{name}": column for name, column in outcome.tags.items()}
    columns |= outcome.conversations
    save_batch(path, pa.RecordBatch.from_pydict(columns), _tell(outcome, note))


def _tell(outcome: Outcome, note: dict[str, Any]) -> dict[str, Any]:
    made = outcome.batch is not None
    return {**note, "made_rows": made, "counts": outcome.counts, "problems": outcome.problems}


def load_outcome(path: Path) -> Outcome:
    """The outcome under `path`. Raises OSError or pyarrow.ArrowInvalid when it is absent or broken."""
    file = BatchFile(path)
    columns = dict(zip(file[0].schema.names, file[0].columns, strict=True))
    outcome = Outcome(
        texts=columns.get("texts"),
        reasons=columns.get("reasons"),
        tags={name.removeprefix("tag:"): column for name, column in columns.items() if name.startswith("tag:")},
        conversations={name: columns[name] for name in CONVERSATIONS if name in columns},
        rows=columns.get("rows"),
        counts=file.note["counts"],
        problems=file.note["problems"],
    )
    if file.note["made_rows"]:
        rows = BatchFile(path.with_suffix(".rows"))[0]
        outcome.parents = rows.column(_PARENTS)
        outcome.batch = rows.drop_columns([_PARENTS])
    return outcome


def read_note(path: Path) -> dict[str, Any] | None:
    """The figures of an outcome that is there and whole; None otherwise. Reads a footer only."""
    file = open_batches(path)
    if file is None or (file.note["made_rows"] and open_batches(path.with_suffix(".rows")) is None):
        return None
    note = file.note
    return None if note["dropped"] and open_batches(path.with_suffix(".dropped")) is None else note


def describe_dropped(batch: pa.RecordBatch, reasons: pa.StringArray, step: str) -> pa.RecordBatch | None:
    """The rows of `batch` that have a reason, as they go to the exclusion file; None when there are none."""
    gone = pc.is_valid(reasons)
    rows = batch.filter(gone)
    if not len(rows):
        return None
    first = pc.list_element(rows.column("spans"), 0)
    columns = [
        rows.column("id"),
        *(pc.struct_field(first, name) for name in ("uri", "blob", "page", "start", "end")),
        pa.array([step] * len(rows), pa.string()),
        reasons.filter(gone),
        rows.column("text"),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DROPPED)
