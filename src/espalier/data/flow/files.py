"""Arrow IPC files that are whole or absent, and mapped rather than read. Knows no step and no key.

They are a cache: what cannot be opened counts as absent and is made again. So they are not synced to disk one by one;
a power cut may lose work, and can never give a wrong result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from espalier.core.ids import make_id
from espalier.store.disk import storage_errors

_NOTE = b"note"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write; it becomes `path` on leaving, and is gone on an error."""
    temporary = path.parent / f".{make_id('tmp')}"
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def save_batches(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], note: Mapping[str, Any] | None = None
) -> None:
    """Write batches of one schema, and a note (JSON values) beside them. Raises StorageFull, PermissionDenied."""
    footer = {_NOTE: json.dumps(note or {}).encode()}
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema, metadata=footer) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def save_batch(path: Path, batch: pa.RecordBatch, note: Mapping[str, Any] | None = None) -> None:
    """`save_batches` of one."""
    save_batches(path, batch.schema, [batch], note)


def save_json(path: Path, value: Any) -> None:
    """Write a JSON value to `path`, replacing what is there."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False))


def load_json(path: Path) -> Any | None:
    """The JSON value in a file; None when there is none, or it is broken."""
    try:
        mark_used(path)
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def mark_used(path: Path) -> bool:
    """Let the cache know that a file is wanted (`cache.prune`); False where there is none."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's, or a disk that is only read
        return path.is_file()
    return path.is_file()


class BatchFile:
    """A mapped file of batches. A batch stays valid after the file is forgotten: it holds the mapping."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or pyarrow.ArrowInvalid when the file is absent or broken."""
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))

    def __len__(self) -> int:
        return int(self._reader.num_record_batches)

    def __getitem__(self, number: int) -> pa.RecordBatch:
        return self._reader.get_batch(number)

    @property
    def note(self) -> dict[str, Any]:
        """What was noted when the file was written."""
        found: dict[str, Any] = json.loads(self._reader.metadata[_NOTE])
        return found


def open_batches(path: Path) -> BatchFile | None:
    """The file, or None when it is absent or broken."""
    try:
        mark_used(path)
        return BatchFile(path)
    except (OSError, pa.ArrowInvalid):
        return None
