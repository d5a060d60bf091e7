"""`AnnotationRecord`: one annotator's word on one example. Written once, never changed; a change of mind is a new one.

As a file: JSON lines, appended to. Knows no tool that people annotate with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from espalier.core.errors import NotFound
from espalier.core.faults import refuse
from espalier.core.ids import canonical_json, digest_of
from espalier.core.types import Spec
from espalier.store.disk import storage_errors

FILE = "annotations.jsonl"
_ID_CHARS = 24
Part = Literal["question", "answer", "text"]


class Rating(Spec):
    """A mark from 1 to `scale`; more is better."""

    kind: Literal["rating"] = "rating"
    value: int = Field(ge=1)
    scale: int = Field(5, ge=2, le=100)

    @model_validator(mode="after")
    def _check_scale(self) -> Rating:
        if self.value > self.scale:
            raise ValueError(f"{self.value} is above the scale's {self.scale}")
        return self


class Labels(Spec):
    """One label, or several where several apply; sorted, none twice."""

    kind: Literal["label"] = "label"
    labels: tuple[str, ...]

    @model_validator(mode="after")
    def _check_sorted(self) -> Labels:
        if list(self.labels) != sorted(set(self.labels)):
            raise ValueError("labels are sorted, none twice")
        return self


class TextSpan(Spec):
    """Characters `start` to `end` (exclusive) of a part of the example, with a label."""

    start: int = Field(ge=0)
    end: int = Field(ge=0)
    label: str
    text: str = ""


class Spans(Spec):
    """All spans an annotator marked in one part; none is an answer too."""

    kind: Literal["span"] = "span"
    part: Part = "answer"
    spans: tuple[TextSpan, ...]


class Preference(Spec):
    """Which answer of a pair is better, by the names the example gives them."""

    kind: Literal["pairwise"] = "pairwise"
    better: Literal["chosen", "rejected", "tie"]


class Repair(Spec):
    """What the answer (or the raw text) should have said."""

    kind: Literal["repair"] = "repair"
    text: str


Value = Annotated[Rating | Labels | Spans | Preference | Repair, Field(discriminator="kind")]


class AnnotationRecord(Spec):
    """Who said what of which example, when. `question` names what was asked: quality, topic, entities ..."""

    id: str
    dataset: str  # artifact digest of the version that was looked at
    example: str
    question: str
    value: Value
    annotator: str
    by: Literal["person", "rule", "model"] = "person"
    at_ms: int
    gold: bool = False  # the last word: an adjudicator's, or known beforehand
    note: str = ""
    lead_time_s: float | None = None
    detail: dict[str, str] = {}  # of a model: its prompt, the digest of its answer

    def says_the_same_as(self, other: AnnotationRecord | None) -> bool:
        """Whether nothing but the time differs."""
        ignored = {"id", "at_ms", "lead_time_s"}
        return other is not None and self.model_dump(exclude=ignored) == other.model_dump(exclude=ignored)


@dataclass(slots=True)
class Annotations:
    """What an annotator said, and why some examples got no word of it: example id -> reason."""

    records: list[AnnotationRecord] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def make_record(
    dataset: str,
    example: str,
    question: str,
    value: Value,
    annotator: str,
    *,
    at_ms: int,
    by: Literal["person", "rule", "model"] = "person",
    gold: bool = False,
    note: str = "",
    lead_time_s: float | None = None,
    detail: dict[str, str] | None = None,
) -> AnnotationRecord:
    """A record; its id follows from all it says."""
    record = AnnotationRecord(
        id="", dataset=dataset, example=example, question=question, value=value, annotator=annotator, by=by,
        at_ms=at_ms, gold=gold, note=note, lead_time_s=lead_time_s, detail=detail or {},
    )  # fmt: skip
    return stamp(record, at_ms)


def stamp(record: AnnotationRecord, at_ms: int) -> AnnotationRecord:
    """The record as said at `at_ms`, with the id that follows: rules and models know no clock."""
    timed = record.model_copy(update={"at_ms": at_ms})
    id = digest_of(timed.model_dump(mode="json", exclude={"id"}))[:_ID_CHARS]
    return timed.model_copy(update={"id": f"ann_{id}"})


def keep_newest(records: Iterable[AnnotationRecord]) -> list[AnnotationRecord]:
    """What each annotator last said of each example and question, by example, question and annotator."""
    newest: dict[tuple[str, str, str], AnnotationRecord] = {}
    for record in records:
        key = record.example, record.question, record.annotator
        known = newest.get(key)
        if known is None or (record.at_ms, record.id) >= (known.at_ms, known.id):
            newest[key] = record
    return [newest[key] for key in sorted(newest)]


def find_news(known: Sequence[AnnotationRecord], arriving: Iterable[AnnotationRecord]) -> list[AnnotationRecord]:
    """Those of `arriving` that are not there yet and change what their annotator last said; so importing twice adds
    nothing."""
    ids = {record.id for record in known}
    last = {(record.example, record.question, record.annotator): record for record in keep_newest(known)}
    news = []
    for record in arriving:
        key = record.example, record.question, record.annotator
        if record.id in ids or record.says_the_same_as(last.get(key)):
            continue
        ids.add(record.id)
        last[key] = record
        news.append(record)
    return news


def append_records(path: Path, records: Iterable[AnnotationRecord]) -> int:
    """Append to the file, on disk when this returns; returns how many. Raises StorageFull."""
    lines = [canonical_json(record.model_dump(mode="json")) + b"\n" for record in records]
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(b"".join(lines))
            stream.flush()
            os.fsync(stream.fileno())
    return len(lines)


def read_records(path: Path) -> list[AnnotationRecord]:
    """The records of a file, or of an artifact's folder, in order. Raises NotFound, InvalidInput with the line."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise NotFound(f"no annotations at {path}", hint=f"a .jsonl file, or a folder with {FILE}")
    records = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            records.append(AnnotationRecord.model_validate_json(line))
        except ValidationError as error:
            where, hint = f"{file}:{number}", "see docs/annotation.md"
            raise refuse(error, None, AnnotationRecord, what="not an annotation", where=where, hint=hint) from None
    return records
