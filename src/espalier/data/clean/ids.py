"""Rows with an id that another row has: found over the whole corpus, the first one keeps it.

The id is the tag that reading made of the column `source.id` names. What is sketched is a 64-bit hash of it, and rows
whose hashes meet are compared by the ids themselves, so nothing is judged by a hash alone. Takes 8 bytes a row.

Legend: n = rows of a batch, N = rows of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from espalier.core.types import Spec
from espalier.data.flow.batch import tag_column
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.spread import Spread
from espalier.data.flow.step import CleanStep, Shards
from espalier.data.readers.problem import Problem

KIND = "duplicate_id"
_SKETCH = pa.schema([pa.field("hash", pa.uint64())])
_DECISION = pa.schema([("row", pa.int32()), ("first", pa.string()), ("made", pa.string())])


class IdsSpec(Spec):
    """What is done about rows that have another row's id. Put in front by itself where `source.id` is set."""

    step: Literal["ids"] = "ids"
    column: str = Field("id", min_length=1, description="the tag that holds a row's id")
    duplicates: Literal["refuse", "skip", "repair"] = Field(
        "repair", description="repair: the second `x` becomes `x~2`; skip leaves it out; refuse stops the build"
    )


@dataclass(slots=True)
class Ids:
    """The prepared step."""

    spec: IdsSpec

    def sketch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A hash of each row's id, null where it has none. (n,)"""
        ids = tag_column(batch, self.spec.column).to_pylist()
        hashes = [None if value is None else xxhash.xxh3_64_intdigest(value.encode()) for value in ids]
        return pa.RecordBatch.from_arrays([pa.array(hashes, pa.uint64())], schema=_SKETCH)

    def decide(
        self, sketches: Sequence[pa.RecordBatch], shards: Shards, work: Path, spread: Spread
    ) -> Iterator[pa.RecordBatch]:
        """For each shard the rows whose id came before: where it came first, and the id made for it.

        Raises InvalidInput at the first such row when duplicates are refused.
        """
        known = _gather(sketches)  # (N,), sorted
        names = _Names(known, np.unique(known[1:][known[1:] == known[:-1]]))
        for number in range(len(shards)):
            sketch = sketches[number].column("hash")
            meeting = np.flatnonzero(np.isin(sketch.fill_null(0).to_numpy(), names.twice) & _valid(sketch))
            yield self._judge(shards[number], meeting, names) if len(meeting) else _decision([])

    def _judge(self, batch: pa.RecordBatch, meeting: NDArray[np.int64], names: _Names) -> pa.RecordBatch:
        rows = batch.take(pa.array(meeting))
        ids = tag_column(rows, self.spec.column).to_pylist()
        found = []
        for row, name, (uri, line) in zip(meeting.tolist(), ids, _places(rows), strict=True):
            first = names.first.setdefault(name, f"{uri}:{line}")
            names.count[name] = names.count.get(name, 0) + 1
            if names.count[name] == 1:
                continue
            if self.spec.duplicates == "refuse":
                raise _report(uri, line, first, "refuse").to_error()
            found.append((row, first, names.make(name) if self.spec.duplicates == "repair" else name))
        return _decision(found)

    def apply_decision(self, batch: pa.RecordBatch, decision: pa.RecordBatch) -> Outcome:
        """Drops rows with the reason "duplicate id: ...", or gives them the ids made for them; and says which."""
        if not len(decision):
            return Outcome()
        rows = decision.column("row").to_numpy()
        made, firsts = decision.column("made").to_pylist(), decision.column("first").to_pylist()
        there = batch.take(pa.array(rows))
        action = self.spec.duplicates
        problems = [
            _report(uri, line, first, action).to_json()
            for first, (uri, line) in zip(firsts, _places(there), strict=True)
        ]
        if action == "skip":
            reasons = [f"duplicate id: that of {first}" for first in firsts]
            return Outcome(reasons=_scatter(len(batch), rows, reasons), problems=problems)
        tags = {self.spec.column: _scatter(len(batch), rows, made)}
        return Outcome(tags=tags, counts={"duplicate id repaired": len(rows)}, problems=problems)


@dataclass(slots=True)
class _Names:
    """What is known of ids that may be there twice: few, next to N."""

    known: NDArray[np.uint64]  # (N,) hashes of all ids, sorted
    twice: NDArray[np.uint64]  # those that are there more than once
    first: dict[str, str] = field(default_factory=dict)  # id -> where it came first
    count: dict[str, int] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)

    def make(self, name: str) -> str:
        """An id like `name` that no row has."""
        number = self.count[name]
        while True:
            made = f"{name}~{number}"
            wanted = np.uint64(xxhash.xxh3_64_intdigest(made.encode()))
            at = int(np.searchsorted(self.known, wanted))
            if made not in self.made and (at == len(self.known) or self.known[at] != wanted):
                self.made.add(made)
                return made
            number += 1


def _gather(sketches: Sequence[pa.RecordBatch]) -> NDArray[np.uint64]:
    """All hashes, sorted in place: (N,) of 8 bytes."""
    counts = [len(sketch) - sketch.column("hash").null_count for sketch in sketches]
    out = np.empty(sum(counts), np.uint64)
    at = 0
    for number, count in enumerate(counts):
        out[at : at + count] = sketches[number].column("hash").drop_null().to_numpy()
        at += count
    out.sort()
    return out


def _valid(column: pa.Array) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _decision(found: Sequence[tuple[int, str, str]]) -> pa.RecordBatch:
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, _DECISION, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_DECISION)


def _scatter(size: int, rows: NDArray[np.int32], values: Sequence[str]) -> pa.StringArray:
    out: list[str | None] = [None] * size
    for row, value in zip(rows.tolist(), values, strict=True):
        out[row] = value
    return pa.array(out, pa.string())


def _report(uri: str, line: str, first: str, action: str) -> Problem:
    # Not the id itself: it may be a person's address.
    return Problem(KIND, uri, int(line or 0), f"the id of {first}", action)


def _places(batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """The file and line of each row."""
    lines = tag_column(batch, "line").to_pylist()
    for spans, line in zip(batch.column("spans").to_pylist(), lines, strict=True):
        yield spans[0]["uri"], line or ""


def prepare(spec: IdsSpec, folder: Path) -> Ids:
    """The step; it names no file."""
    return Ids(spec)


STEP = CleanStep("ids", 1, IdsSpec, prepare)
