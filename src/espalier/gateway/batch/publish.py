"""A batch's journal -> its results: every line of the input once, in the input's order, published whole or not at all.

Answers and failures are copied as the journal holds them; a line that was never asked says why. The files become blobs
under the sha256 of their bytes. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from espalier.core.errors import EspalierError, Interrupted, Unauthenticated, Unavailable
from espalier.core.ports import Blobs
from espalier.gateway.batch.journal import Journal
from espalier.gateway.batch.records import Batch
from espalier.gateway.batch.shapes import Shape
from espalier.store.disk import storage_errors
from espalier.wire.batchline import Asked

_BUFFER_BYTES = 1 << 20

# Why a batch ended before all its lines were asked -> what each of these says.
UNANSWERED: dict[str, tuple[str, EspalierError]] = {
    "cancel": ("batch_cancelled", Interrupted("the batch was cancelled before this line was asked")),
    "expire": ("batch_expired", Unavailable("the completion window ended before this line was asked")),
    "revoke": ("invalid_api_key", Unauthenticated("the key was revoked before this line was asked")),
    "fail": ("batch_failed", Unavailable("the batch was given up before this line was asked")),
}


@dataclass(frozen=True, slots=True)
class Results:
    """Digests and sizes of the result files; an empty file is not stored, its digest is empty.

    `fault` is why the first line without an answer has none.
    """

    output: str = ""
    output_bytes: int = 0
    errors: str = ""
    errors_bytes: int = 0
    fault: str = ""


def publish(
    batch: Batch, shape: Shape, journal: Journal, decode: Callable[[int], Asked], folder: Path, blobs: Blobs, why: str
) -> Results:
    """Write the results and store them; `why` is the reason of lines that were not asked. Raises StorageFull."""
    output, errors = folder / "output.jsonl", folder / "errors.jsonl"
    with _writing(output) as answers, _writing(errors) as failures:
        apart, first = answers if shape.one_file else failures, b""
        for number, entry in enumerate(journal.entries()):
            if entry is not None and entry.kind == "+":
                answers.write(entry.text + b"\n")
                continue
            refusal = entry.text if entry else _unanswered(batch, shape, decode(number), number, why)
            first = first or refusal
            apart.write(refusal + b"\n")
    output_digest, output_bytes = _keep(blobs, output)
    errors_digest, errors_bytes = _keep(blobs, errors)
    fault = shape.explain(first) if first else ""
    return Results(output_digest, output_bytes, errors_digest, errors_bytes, fault)


def _unanswered(batch: Batch, shape: Shape, asked: Asked, number: int, why: str) -> bytes:
    code, fault = UNANSWERED.get(why, UNANSWERED["fail"])
    return shape.refuse(batch.request_id(number), replace(asked, fault=fault, fault_code=code), number)


def _keep(blobs: Blobs, path: Path) -> tuple[str, int]:
    try:
        return blobs.put_file(path) if path.stat().st_size else ("", 0)
    finally:
        path.unlink()


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    with storage_errors(path), path.open("wb", _BUFFER_BYTES) as stream:
        yield stream
