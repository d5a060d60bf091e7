"""The rows of a batch, one by one: where each is from, and its fields. Knows batches; knows no task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from espalier.core.errors import InvalidInput


@dataclass(slots=True)
class Origin:
    """One row of a batch: where it is from, and its fields when asked for."""

    id: str
    row: str
    text: str
    tags: dict[str, str]
    uri: str

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
        if "\\ud" in self.row or "\\uD" in self.row:
            check_characters(fields)
        if not isinstance(fields, dict):
            raise InvalidInput(f"a JSON object is wanted, not {type(fields).__name__}")
        return fields


def check_characters(fields: Any) -> None:
    """Raises InvalidInput for half a surrogate pair: JSON can escape one, but no text can hold it."""
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            "half a surrogate pair, which is no character", hint="write characters, not halves"
        ) from None


def iterate_origins(batch: pa.RecordBatch) -> Iterator[Origin]:
    """The rows of a batch. (n,)"""
    names = ("id", "row", "text", "tags")
    spans = batch.column("spans")
    uris = pc.struct_field(pc.list_element(spans, 0), "uri") if len(batch) else spans
    columns = [*(batch.column(name).to_pylist() for name in names), uris.to_pylist()]
    for id_, row, text, tags, uri in zip(*columns, strict=True):
        yield Origin(id_, row, text, dict(tags), uri or "")
