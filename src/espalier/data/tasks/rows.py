"""Runs a function over the rows of a batch, before cleaning, and makes examples of what is left of them afterwards.

Knows batches and `Decoded`; does not know what any task asks of a row.

Legend: n = rows of the batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Spec
from espalier.data.flow.outcome import Outcome
from espalier.data.formats.decoded import Decoded
from espalier.data.tasks.fields import Read, prepare_field
from espalier.data.tasks.gather import Columns
from espalier.data.tasks.origins import Origin, iterate_origins
from espalier.store import examples

# From a row's fields (of a document: its text, uri and tags) to what it says. Raises InvalidInput.
Decode = Callable[[Mapping[str, Any]], Decoded | Sequence[Decoded]]
GROUP = "group"  # tag: examples that share it share a split


class RowSpec(Spec):
    """What every task over rows takes."""

    tags: tuple[str, ...] = Field((), description="columns kept as tags: to stratify or slice by")
    group: str = Field("", description="column or template; rows with the same value share a split")

    def prepare_group(self) -> Read | None:
        """`group` as a function of a row; None without one."""
        return prepare_field(self.group, "task.group") if self.group else None


@dataclass(slots=True)
class RowTask:
    """A task that looks at one row at a time. `decode` may give several for a row; then each is a document."""

    decode: Decode
    needs_rows: bool = True
    label_count: int = 0
    keep: tuple[str, ...] = ()  # columns kept as tags
    group: Read | None = None  # what rows must share to stay in one split

    def parse(self, batch: pa.RecordBatch) -> Outcome:
        """Rows -> texts, conversations and tags; what cannot be read is dropped, naming file and line.

        A row's fields end here: what the task did not take is not carried along, nor cleaned, nor kept.
        """
        columns = Columns()
        reasons: list[str | None] = []
        for index, origin in enumerate(iterate_origins(batch)):
            several, reason = self._decode_one(origin)
            reasons.append(reason)
            columns.add(index, origin, several)
        outcome = columns.to_outcome(batch.column("spans"))
        outcome.reasons = pa.array(reasons, pa.string()) if any(reasons) else None
        return outcome

    def make_examples(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One example a document, as it stands."""
        return to_examples(batch)

    def _decode_one(self, origin: Origin) -> tuple[Sequence[Decoded], str | None]:
        try:
            fields = origin.fields()
            decoded = self.decode(fields)
            group = {GROUP: hash_key(self.group(fields))} if self.group else {}
        except InvalidInput as error:
            return (), f"unreadable: {origin.place}: {error.message}"
        several = [decoded] if isinstance(decoded, Decoded) else decoded
        if not several:
            return (), f"nothing in it: {origin.place}"
        kept = {name: as_tag(fields[name]) for name in self.keep if fields.get(name) is not None}
        for each in several:
            each.tags = {**kept, **each.tags, **group}
        return several, None


def to_examples(batch: pa.RecordBatch, *, raw: bool = False, messages: pa.ListArray | None = None) -> pa.RecordBatch:
    """One example a document: its conversations, or with `raw` its text. `messages` (n,) replace the batch's own."""
    count = len(batch)
    empty = pa.array([""] * count, pa.string())
    ids = batch.column("id")
    columns = {
        "id": pc.binary_join_element_wise("ex", ids, "_"),
        "messages": batch.column("messages") if messages is None else messages,
        "text": batch.column("text") if raw else empty,
        "chosen": batch.column("chosen"),
        "rejected": batch.column("rejected"),
        "split": pa.array(["train"] * count, pa.string()),
        "documents": pa.ListArray.from_arrays(pa.array(range(count + 1), pa.int32()), ids),
        "tags": batch.column("tags"),
    }
    arrays = [columns[name.name].cast(name.type) for name in examples.SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=examples.SCHEMA)


def hash_key(key: str) -> str:
    """A key that tells nothing of what it stands for, as a tag: 64 bits of it."""
    return f"key-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"


def as_tag(value: Any) -> str:
    """A column's value as a tag: texts as they are, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
