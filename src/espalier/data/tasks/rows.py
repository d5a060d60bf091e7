"""Runs a function over the rows of a batch, before cleaning, and makes examples of what is left of them afterwards.

Knows batches and `Decoded`; does not know what any task asks of a row.

Legend: n = rows of the batch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Message, Spec
from espalier.data.flow.batch import CONVERSATIONS, MESSAGE, SCHEMA
from espalier.data.flow.outcome import Outcome
from espalier.data.formats.decoded import Decoded
from espalier.data.tasks.fields import Read, prepare_field
from espalier.store import examples

# From a row's fields (of a document: its text, uri and tags) to what it says. Raises InvalidInput.
Decode = Callable[[Mapping[str, Any]], Decoded | Sequence[Decoded]]
GROUP = "group"  # tag: examples that share it share a split
MESSAGES = SCHEMA.field("messages").type


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
        """Rows -> texts, conversations and tags; what cannot be read is dropped, naming file and line."""
        origins = list_origins(batch)
        found: list[Sequence[Decoded]] = []
        reasons: list[str | None] = []
        counts: Counter[str] = Counter()
        for origin in origins:
            decoded, reason = self._decode_one(origin)
            found.append(decoded)
            reasons.append(reason)
            counts.update(each.form for each in decoded if each.form)
        if any(len(decoded) > 1 or (decoded and decoded[0].end) for decoded in found):
            outcome = multiply(batch, origins, found)
        else:
            outcome = fill(batch, [decoded[0] if decoded else Decoded() for decoded in found])
        outcome.reasons = pa.array(reasons, pa.string()) if any(reasons) else None
        outcome.counts = dict(sorted(counts.items()))
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


@dataclass(slots=True)
class Origin:
    """One row of a batch: where it is from, and its fields when asked for."""

    id: str
    row: str
    text: str
    tags: dict[str, str]
    uri: str
    spans: list[dict[str, Any]] = field(default_factory=list)

    @property
    def place(self) -> str:
        """file:line, or the file of a document that is no row."""
        line = self.tags.get("line")
        return f"{self.uri}:{line}" if line else self.uri

    def fields(self) -> dict[str, Any]:
        """A table row's own fields; of a document its tags, `uri` and `text`. Raises InvalidInput."""
        if not self.row:
            return {**self.tags, "uri": self.uri, "text": self.text}
        fields = json.loads(self.row)
        if not isinstance(fields, dict):
            raise InvalidInput(f"a JSON object is wanted, not {type(fields).__name__}")
        return fields


def list_origins(batch: pa.RecordBatch) -> list[Origin]:
    """The rows of a batch. (n,)"""
    names = ("id", "row", "text", "tags", "spans")
    columns = [batch.column(name).to_pylist() for name in names]
    return [
        Origin(id_, row, text, dict(tags), spans[0]["uri"] if spans else "", spans)
        for id_, row, text, tags, spans in zip(*columns, strict=True)
    ]


def fill(batch: pa.RecordBatch, decoded: Sequence[Decoded]) -> Outcome:
    """The outcome of one `Decoded` a row, in place. (n,)"""
    names = sorted({name for each in decoded for name in each.tags})
    return Outcome(
        texts=pa.array([each.whole_text() for each in decoded], pa.large_string()),
        tags={name: pa.array([each.tags.get(name) for each in decoded], pa.string()) for name in names},
        conversations={
            name: column
            for name in CONVERSATIONS
            if len((column := to_turns([getattr(each, name) for each in decoded])).values)
        },
    )


def multiply(batch: pa.RecordBatch, origins: Sequence[Origin], found: Sequence[Sequence[Decoded]]) -> Outcome:
    """The outcome of several `Decoded` a row: rows with ids `{id}.{k}`, k from 1, their spans narrowed."""
    rows, parents = [], []
    for index, (origin, several) in enumerate(zip(origins, found, strict=True)):
        for number, each in enumerate(several, 1):
            parents.append(index)
            rows.append(
                {
                    "id": origin.id if len(several) == 1 and not each.end else f"{origin.id}.{number}",
                    "text": each.whole_text(),
                    "spans": origin.spans if origin.row else _narrow(origin.spans, each.start, each.end),
                    "tags": sorted({**origin.tags, **each.tags}.items()),
                    "row": origin.row,
                    **{name: _structs(getattr(each, name)) for name in CONVERSATIONS},
                }
            )
    return Outcome(batch=pa.RecordBatch.from_pylist(rows, SCHEMA), parents=pa.array(parents, pa.int32()))


def to_turns(conversations: Iterable[Sequence[Message]]) -> pa.ListArray:
    """Conversations as a column of lists of turns."""
    offsets: list[int] = [0]
    turns: list[Message] = []
    for conversation in conversations:
        turns += conversation
        offsets.append(len(turns))
    made = pa.StructArray.from_arrays(
        [
            pa.array([turn.role for turn in turns], pa.string()),
            pa.array([turn.content for turn in turns], pa.large_string()),
            pa.array([turn.weight for turn in turns], pa.float64()),
        ],
        fields=list(MESSAGE),
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), made, type=MESSAGES)


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


def _structs(turns: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": turn.content, "weight": turn.weight} for turn in turns]


def _narrow(spans: list[dict[str, Any]], start: int, end: int) -> list[dict[str, Any]]:
    if not end or len(spans) != 1:
        return spans
    return [{**spans[0], "start": spans[0]["start"] + start, "end": spans[0]["start"] + end}]
