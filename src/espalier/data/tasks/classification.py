"""A text and its label: the assistant answers with the label, which is also the tag `label` for a classifying head."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from espalier.core.errors import InvalidInput, NotFound, did_you_mean
from espalier.core.types import Message
from espalier.data.flow.outcome import Outcome
from espalier.data.formats.decoded import Decoded, Row
from espalier.data.readers.plain import decode as decode_bytes
from espalier.data.tasks.answered import ask
from espalier.data.tasks.fields import Read, find_value, is_template, prepare_required
from espalier.data.tasks.origins import check_characters
from espalier.data.tasks.rows import RowSpec, RowTask
from espalier.data.tasks.task import Rewrite, Task, TaskKind

LABEL = "label"
ReadLabel = Callable[[Row], str]


class ClassificationTask(RowSpec):
    """Rows or documents that hold a text and a label."""

    kind: Literal["classification"] = "classification"
    text: str = Field("text", description="column, path or template with the text")
    label: str = Field(
        "label", description="column, path or template with the label; a document's tags count as columns"
    )
    labels: str = Field(
        "", description="JSON file with the labels, relative to the source folder: a list, or {value in the row: label}"
    )
    template: str = Field(
        "{% if labels %}Which label fits this text? Answer with one of: {{ labels | join(', ') }}.\n\n{% endif %}"
        "{{ text }}",
        description="template of the user's turn over `text`, `labels` and tags",
    )
    system: str = Field("", description="template of a system turn over the same; empty = none")


@dataclass(slots=True)
class LabelledTexts:
    """Texts whose answer is a label."""

    rows: RowTask
    read: Read
    system: Read | None
    needs_rows: bool = True
    label_count: int = 0

    def parse(self, batch: pa.RecordBatch) -> Outcome:
        """The text alone as the text, the label as the answer and the tag."""
        return self.rows.parse(batch)

    def make_examples(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The question about the text, then its label."""
        return ask(batch, self.read, self.system)


def prepare(spec: ClassificationTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Reads the labels; raises NotFound, InvalidInput for the file or a template."""
    named = read_labels(folder / spec.labels, spec.labels) if spec.labels else {}
    labels = tuple(dict.fromkeys(named.values()))
    read_text, find_label = prepare_required(spec.text, "task.text"), _prepare_label(spec.label, named, spec.labels)

    def decode(row: Row) -> Decoded:
        label = find_label(row)
        return Decoded([Message("assistant", label)], text=read_text(row), tags={LABEL: label})

    rows = RowTask(decode, keep=spec.tags, group=spec.prepare_group())
    system = _with_labels(spec.system, "task.system", labels) if spec.system else None
    return LabelledTexts(rows, _with_labels(spec.template, "task.template", labels), system)


def read_labels(path: Path, name: str) -> dict[str, str]:
    """Value in a row -> label. Of a list, a label and its number (from 0) both stand for it.

    Raises NotFound without the file, InvalidInput when it is neither a list of texts nor an object of texts.
    """
    if not path.is_file():
        raise NotFound(f"no file {name} with labels", hint="`task.labels` is relative to the source folder")
    try:
        found: Any = json.loads(decode_bytes(path.read_bytes()))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"not JSON: {error}", where=name, hint='["refund", "delivery"]') from None
    check_characters(found)
    values = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    if not values or not all(isinstance(value, str) and value.strip() for value in values):
        raise InvalidInput(
            "labels are a list of texts, or an object of texts", where=name, hint='["refund", "delivery"]'
        )
    if isinstance(found, dict):
        return {str(key): value for key, value in found.items()}
    if len(set(found)) < len(found):
        raise InvalidInput("a label stands in the list twice", where=name, hint="keep one of the two")
    return {str(number): label for number, label in enumerate(found)} | {label: label for label in found}


def _prepare_label(where: str, named: Mapping[str, str], file: str) -> ReadLabel:
    template = prepare_required(where, "task.label") if is_template(where) else None

    def read(row: Row) -> str:
        value: Any = template(row) if template else find_value(row, where)
        if value is None or isinstance(value, list | dict) or not str(value).strip():
            raise InvalidInput(f"`{where}` must be a label that is not empty", hint=f"fields here: {', '.join(row)}")
        said = json.dumps(value) if isinstance(value, bool) else str(value).strip()
        if not named:
            return said
        if said not in named:
            raise InvalidInput(f"{file} has no label {said!r}", hint=did_you_mean(said, set(named.values())))
        return named[said]

    return read


def _with_labels(template: str, where: str, labels: Sequence[str]) -> Read:
    read = prepare_required(template, where)
    return lambda row: read({**row, "labels": labels})


KIND = TaskKind("classification", 1, ClassificationTask, prepare, files=("labels",))
