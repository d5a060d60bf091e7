"""A shard: a stretch of the corpus, cut where its content says, and what steps have made of it so far.

The cut depends on the sources' content and order alone, not on how many workers read them; and since it follows
content, a new file moves the cuts near it and no others, so that what was computed for the rest is found again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from espalier.data.flow.batch import SCHEMA, SPAN, set_column
from espalier.data.flow.files import BatchFile
from espalier.data.flow.outcome import apply_outcome
from espalier.data.flow.record import load_outcome

# Text of a shard. A worker holds a shard several times over while it works on it.
SHARD_BYTES = 16 << 20
SHARD_ROWS = 20_000
# Once half full, a shard ends after a source whose digest begins so: about every eighth.
_CUT_BELOW = 0x20


@dataclass(frozen=True, slots=True)
class Part:
    """One batch of a source as it was read. `key` names its content, `uri` is the source's name today."""

    path: str
    number: int
    key: str
    uri: str
    rows: int
    text_bytes: int
    last: bool  # of its source


@dataclass(frozen=True, slots=True)
class Shard:
    """Parts, and the outcomes applied to them in order. `key` names what it holds after those."""

    parts: tuple[Part, ...]
    key: str
    outcomes: tuple[str, ...] = ()

    def advance(self, key: str, outcome: Path) -> Shard:
        """The shard after one more step."""
        return replace(self, key=key, outcomes=(*self.outcomes, str(outcome)))


def cut_shards(parts: Iterable[Part]) -> Iterator[Shard]:
    """Parts in order -> shards."""
    held: list[Part] = []
    text_bytes = rows = 0
    for part in parts:
        if held and (text_bytes + part.text_bytes > SHARD_BYTES or rows + part.rows > SHARD_ROWS):
            yield _close(held)
            held, text_bytes, rows = [], 0, 0
        held.append(part)
        text_bytes += part.text_bytes
        rows += part.rows
        if part.last and text_bytes * 2 >= SHARD_BYTES and int(part.key[:2], 16) < _CUT_BELOW:
            yield _close(held)
            held, text_bytes, rows = [], 0, 0
    if held:
        yield _close(held)


def _close(parts: list[Part]) -> Shard:
    told = "\n".join(f"{part.key} {part.number} {part.uri}" for part in parts)
    return Shard(tuple(parts), hashlib.sha256(told.encode()).hexdigest())


def load_shard(shard: Shard) -> pa.RecordBatch:
    """The shard's rows after all its outcomes."""
    opened: dict[str, BatchFile] = {}
    batches = []
    for part in shard.parts:
        file = (
            opened.setdefault(part.path, BatchFile(Path(part.path))) if part.path not in opened else opened[part.path]
        )
        batches.append(_name_source(file[part.number], part.uri))
    batch = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    for path in shard.outcomes:
        batch = apply_outcome(batch, load_outcome(Path(path)))
    return batch


def _name_source(batch: pa.RecordBatch, uri: str) -> pa.RecordBatch:
    """Spans under the name the source has today: what was read is kept by content, and a file may be renamed."""
    column = batch.column(SCHEMA.get_field_index("spans"))
    spans = column.flatten()
    if not len(spans) or spans.field("uri")[0].as_py() == uri:
        return batch
    fields = [pa.array([uri] * len(spans), pa.string()) if f.name == "uri" else spans.field(f.name) for f in SPAN]
    named = pa.StructArray.from_arrays(fields, fields=list(SPAN))
    return set_column(batch, "spans", pa.ListArray.from_arrays(column.offsets, named, type=column.type))
