"""What a step says about a batch: only what it changed. So an outcome is also the step's checkpoint, small on disk.

The engine applies outcomes (`apply_outcome`); a step never builds the next batch itself, unless it makes new rows.

Legend: n = rows of the batch the step was given, m = rows it made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from espalier.data.flow.batch import CONVERSATIONS, set_column, set_tags


@dataclass(slots=True)
class Outcome:
    """Changes to a batch of n rows; what is None or empty stays as it was.

    Either the columns are changed in place (`texts`, `tags`, `conversations`), or `batch` holds rows made anew with
    `parents[i]` the input row that row i came from; `reasons` always speaks of the n input rows.
    """

    texts: pa.LargeStringArray | None = None  # (n,)
    reasons: pa.StringArray | None = None  # (n,) why a row is dropped; null where it stays
    tags: dict[str, pa.StringArray] = field(default_factory=dict)  # (n,) each; null leaves that row's tag
    conversations: dict[str, pa.ListArray] = field(default_factory=dict)  # messages, chosen, rejected: (n,) each
    rows: pa.LargeStringArray | None = None  # (n,) the fields of table rows, as JSON
    batch: pa.RecordBatch | None = None  # (m,)
    parents: pa.Int32Array | None = None  # (m,), given with `batch`
    counts: dict[str, int] = field(default_factory=dict)  # the step's own figures; summed over batches
    problems: list[dict[str, Any]] = field(default_factory=list)  # `readers.problem.Problem`s, for problems.jsonl


def apply_outcome(batch: pa.RecordBatch, outcome: Outcome) -> pa.RecordBatch:
    """What goes on to the next step."""
    if outcome.batch is not None:
        return outcome.batch
    if outcome.texts is not None:
        batch = set_column(batch, "text", outcome.texts)
    for name, column in outcome.conversations.items():
        batch = set_column(batch, name, column)
    if outcome.rows is not None:
        batch = set_column(batch, "row", outcome.rows)
    batch = set_tags(batch, outcome.tags)
    return batch if outcome.reasons is None else batch.filter(pc.is_null(outcome.reasons))


def rewrite_conversations(batch: pa.RecordBatch, rewrite: Any) -> dict[str, pa.ListArray]:
    """Every message of the batch through `rewrite` (LargeStringArray -> same); only the columns that changed."""
    made = {name: rewrite_messages(batch.column(name), rewrite) for name in CONVERSATIONS}
    return {name: column for name, column in made.items() if column is not None}


def rewrite_messages(column: pa.ListArray, rewrite: Any) -> pa.ListArray | None:
    """One column of conversations through `rewrite`; None when no message changed."""
    messages = column.flatten()
    if len(messages) == 0:
        return None
    contents = messages.field("content")
    rewritten = rewrite(contents)
    if rewritten.equals(contents):
        return None
    made = pa.StructArray.from_arrays(
        [messages.field("role"), rewritten, messages.field("weight")], fields=list(messages.type)
    )
    offsets = pc.subtract(column.offsets, column.offsets[0])
    return pa.ListArray.from_arrays(offsets, made, type=column.type)
