"""The journal of an evaluation: every answer, a line as soon as it is there, so that a killed run asks nothing twice.

A line is keyed by what was asked and how (`key`), so a journal left by other settings is never mistaken for this one's.
A line torn by a crash is dropped. The journal is working memory; what is kept of it is `cases.jsonl`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from espalier.core.ids import canonical_json, digest_of
from espalier.core.types import Generation, SamplingSpec
from espalier.store.disk import storage_errors


class Journal:
    """Answers by key, in a file at `path`, or in memory only when `path` is None."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = _read(path) if path is not None and path.exists() else {}

    def find(self, key: str) -> Generation | None:
        return self._known.get(key)

    def add(self, answers: Sequence[tuple[str, Generation]]) -> None:
        """Append a batch, on disk when this returns. Raises StorageFull."""
        self._known.update(answers)
        if self._path is None:
            return
        lines = b"".join(canonical_json({"key": key, "answer": answer.model_dump()}) + b"\n" for key, answer in answers)
        with storage_errors(self._path), self._path.open("ab") as stream:
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())


def answer_key(subject: str, question: str, sampling: SamplingSpec) -> str:
    """The digest of (who is asked, what, how)."""
    return digest_of([subject, question, sampling.model_dump()])


def _read(path: Path) -> dict[str, Generation]:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):  # a torn line: cut it off, so that the next append starts on a line of its own
        with path.open("r+b") as stream:
            stream.truncate(whole)
    rows = [json.loads(line) for line in data[:whole].splitlines()]
    return {row["key"]: Generation.model_validate(row["answer"]) for row in rows}
