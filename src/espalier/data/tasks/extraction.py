"""A document and its record as one chat: the user gives the text, the assistant answers with the record.

Records come from a JSON-lines file; a key found in the document names its record. The key is looked for in what was
read, before any cleaning; the answer travels with the document, so that cleaning rewrites it too. Does not know what a
record is like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from espalier.core.errors import InvalidInput, NotFound, did_you_mean
from espalier.core.types import Message, Spec
from espalier.data.flow.outcome import Outcome
from espalier.data.readers.plain import decode
from espalier.data.readers.table import parse_object
from espalier.data.tasks.answered import ask
from espalier.data.tasks.fields import Read, prepare_required
from espalier.data.tasks.gather import to_turns
from espalier.data.tasks.origins import Origin, check_characters, iterate_origins
from espalier.data.tasks.rows import GROUP, hash_key
from espalier.data.tasks.task import Rewrite, Task, TaskKind


class ExtractionTask(Spec):
    """Answer each document with its record."""

    kind: Literal["extraction"] = "extraction"
    labels: str = Field(description="JSON lines with one record each, relative to the source folder")
    key: str = Field(description="regular expression that finds a document's key; its first group when it has one")
    key_from: str = Field("text", description="where the key stands: text, uri, or tag:NAME (a column of a table)")
    label_key: str = Field("ref", description="field of a label that holds the key")
    label_answer: str = Field("record", description="field of a label that holds the answer")
    template: str = Field("", description="template of the user's turn over `text` and tags; empty = the text alone")

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        try:
            re.compile(key)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return key


@dataclass(slots=True)
class LabelledDocuments:
    """Documents with the record their key names."""

    spec: ExtractionTask
    pattern: re.Pattern[str]
    answers: Mapping[str, str]
    rewrite: Rewrite | None = None
    read: Read | None = None
    needs_rows: bool = False
    label_count: int = 0

    def parse(self, batch: pa.RecordBatch) -> Outcome:
        """The answer as a turn and the key as the tag `group`; a document without either is dropped."""
        keys = [self._find_key(origin) for origin in iterate_origins(batch)]
        shown = self._conceal(keys)
        answers = [self.answers.get(key) if key is not None else None for key in keys]
        reasons = [
            None if answer is not None else self._explain(key, show)
            for key, answer, show in zip(keys, answers, shown, strict=True)
        ]
        turns = [[Message("assistant", answer)] if answer is not None else [] for answer in answers]
        return Outcome(
            reasons=pa.array(reasons, pa.string()) if any(reasons) else None,
            tags={GROUP: pa.array(shown, pa.string())},
            conversations={"messages": to_turns(turns)},
        )

    def make_examples(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What is asked about the text, then the record."""
        return ask(batch, self.read)

    def _find_key(self, origin: Origin) -> str | None:
        place = self.spec.key_from
        if place.startswith("tag:"):
            text = origin.tags.get(place.removeprefix("tag:"), "")
        else:
            text = origin.uri if place == "uri" else origin.text
        match = self.pattern.search(text)
        if match is None:
            return None
        return match[1] if self.pattern.groups and match[1] else match[0]

    def _conceal(self, keys: Sequence[str | None]) -> list[str | None]:
        """Keys as they may be shown: themselves, or a hash where cleaning changes them (somebody's mail address)."""
        if self.rewrite is None:
            return list(keys)
        rewritten = self.rewrite(pa.array([key or "" for key in keys], pa.large_string())).to_pylist()
        return [key if key is None or key == new else hash_key(key) for key, new in zip(keys, rewritten, strict=True)]

    def _explain(self, key: str | None, shown: str | None) -> str:
        if key is None:
            return f"no key: {self.spec.key} found nothing in its {self.spec.key_from}"
        return f"no label: {self.spec.labels} has none for {shown}"


def prepare(spec: ExtractionTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Reads the labels; raises NotFound, InvalidInput for those, for the key's pattern and for the template."""
    pattern = compile_key(spec.key)
    labels = read_labels(folder / spec.labels, spec)
    read = prepare_required(spec.template, "task.template") if spec.template else None
    return LabelledDocuments(spec, pattern, labels, rewrite, read, label_count=len(labels))


KIND = TaskKind("extraction", 1, ExtractionTask, prepare, files=("labels",))


def read_labels(path: Path, task: ExtractionTask) -> dict[str, str]:
    """Answers by key.

    Raises NotFound without the file, InvalidInput("records.jsonl:7: ...") for a line that is no label or a key seen
    before.
    """
    if not path.is_file():
        raise NotFound(f"no file {task.labels} with labels", hint="`task.labels` is relative to the source folder")
    answers: dict[str, str] = {}
    for number, row in iterate_objects(path):
        where = f"{task.labels}:{number}"
        for name in (task.label_key, task.label_answer):
            if name not in row:
                raise InvalidInput(f"the label has no field {name!r}", where=where, hint=did_you_mean(name, row))
        key = str(row[task.label_key])
        if key in answers:
            raise InvalidInput(f"a second label for {key!r}", where=where, hint="keep one of the two")
        answers[key] = _as_text(row[task.label_answer])
    if not answers:
        raise InvalidInput("the file holds no label", where=task.labels)
    return answers


def iterate_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON-lines file; raises InvalidInput naming file and line."""
    for number, line in enumerate(decode(path.read_bytes()).split("\n"), 1):
        if line.strip():
            try:
                row = parse_object(line)
                check_characters(row)
                yield number, row
            except InvalidInput as error:
                raise InvalidInput(error.message, where=f"{path.name}:{number}", hint="mend that line") from None


def compile_key(expression: str) -> re.Pattern[str]:
    """Raises InvalidInput for what is no regular expression."""
    try:
        return re.compile(expression)
    except re.error as error:
        raise InvalidInput(f"not a regular expression: {error}", where="task.key", hint="try key: 'T-[0-9]+'") from None


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    import json

    return json.dumps(value, ensure_ascii=False)
