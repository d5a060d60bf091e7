"""The journal of answers: each a line on disk as soon as it is there, so that work killed half-way asks nothing twice.

A line is keyed by what was asked, of whom and how (`answer_key`), so a journal left by other settings is never mistaken
for this one's. A line torn by a crash is dropped. Knows questions and answers; does not know what they are for.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from espalier.core.ids import canonical_json, digest_of
from espalier.core.types import Generation, SamplingSpec
from espalier.store.disk import storage_errors


class Journal:
    """Answers by key, in a file at `path`, or in memory only when `path` is None.

    Threads and processes may share one: whole lines are written, one writer at a time.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = _read(path) if path is not None and path.exists() else {}

    def find(self, key: str) -> Generation | None:
        return self._known.get(key)

    def add(self, answers: Sequence[tuple[str, Generation]]) -> None:
        """Append a batch, on disk when this returns. Raises StorageFull."""
        with self._lock:
            self._known.update(answers)
            if self._path is None:
                return
            rows = ({"key": key, "answer": answer.model_dump()} for key, answer in answers)
            lines = b"".join(canonical_json(row) + b"\n" for row in rows)
            with storage_errors(self._path), _locked(self._path, "ab") as stream:
                stream.write(lines)
                stream.flush()
                os.fsync(stream.fileno())


def answer_key(subject: str, question: str, sampling: SamplingSpec) -> str:
    """The digest of (who is asked, the question's digest, how)."""
    return digest_of([subject, question, sampling.model_dump()])


def _read(path: Path) -> dict[str, Generation]:
    with _locked(path, "r+b") as stream:
        data = stream.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # a torn line: cut it off, so that the next append starts on a line of its own
            stream.truncate(whole)
    rows = [json.loads(line) for line in data[:whole].splitlines()]
    return {row["key"]: Generation.model_validate(row["answer"]) for row in rows}


@contextmanager
def _locked(path: Path, mode: str) -> Iterator[IO[bytes]]:
    with path.open(mode) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream
