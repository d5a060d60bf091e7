"""The process in which foreign formats are read: `python -m espalier.data.readers.child MEMORY_BYTES SECONDS`.

Takes one request a line, gives frames back. It limits itself before it touches a file: so much memory over what it
started with, no file written and no connection made, an alarm that ends it even when whoever asked is gone. See
`sandbox` for the other end.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from espalier.core.errors import EspalierError
from espalier.core.plugins import load_plugin
from espalier.core.types import Document
from espalier.data.flow.batch import SCHEMA, to_batch
from espalier.data.readers.landlock import give_up_changes
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.problem import Problem
from espalier.data.readers.sandbox import BATCH, END, HEAD, PROBLEM
from espalier.data.readers.source import SourceFile, suffix_of

GRACE_S = 2.0  # the asker's own limit comes first
MAX_FILES = 2_000  # then a fresh process: foreign libraries leak
_BATCH_CHARS = 8 << 20


def main() -> None:
    """Serve until the input ends, or until a file has taken too much."""
    memory_bytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    out = os.fdopen(os.dup(1), "wb")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # what a library prints must not reach the frames
    base_bytes = confine(memory_bytes)
    _send(out, END, b"")
    for served, line in enumerate(sys.stdin.buffer, 1):
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_S)
        request = json.loads(line)
        error = serve(request, out)
        signal.setitimer(signal.ITIMER_REAL, 0)
        retire = served >= MAX_FILES or _address_bytes() > base_bytes + memory_bytes // 2 or "memory" in error
        _send(out, END, json.dumps({"error": error.get("error"), "retire": retire}).encode())


def confine(memory_bytes: int) -> int:
    """Set the limits of this process; the address space it had before, in bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asked
    base_bytes = _address_bytes()
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)]
    if base_bytes:
        limits.append((resource.RLIMIT_AS, base_bytes + memory_bytes))
    for kind, most in limits:
        with suppress(ValueError, OSError):  # a system that knows no such limit
            resource.setrlimit(kind, (most, most))
    give_up_changes()
    return base_bytes


def serve(request: dict[str, Any], out: IO[bytes]) -> dict[str, Any]:
    """Read one file and send what it gives; what went wrong, as `error`, with `memory` set where that ran out."""
    source = SourceFile(Path(request["path"]), request["uri"], request["sha256"], request["licence"])
    options = ReadOptions.from_json(request["options"])
    pile = _Pile(source, options, out)

    def read() -> None:
        for document in load_plugin(*request["reader"])(source):
            pile.add(document)

    failed = _attempt(read, options)
    return _attempt(pile.flush, options) or failed


def _attempt(work: Callable[[], None], options: ReadOptions) -> dict[str, Any]:
    try:
        work()
    except MemoryError:
        message = f"reading it takes more than {options.max_memory_bytes >> 20} MiB of memory"
        return {"error": EspalierError(message).to_json(), "memory": True}
    except EspalierError as error:
        return {"error": error.to_json()}
    except Exception as error:  # noqa: BLE001 - hostile bytes through foreign code: whatever it raises, the file is bad
        return {"error": EspalierError(f"{type(error).__name__}: {error}"[:300]).to_json()}
    return {}


@dataclass(slots=True)
class _Pile:
    """Documents on their way out."""

    source: SourceFile
    options: ReadOptions
    out: IO[bytes]
    documents: list[Document] = field(default_factory=list)
    chars: int = 0

    def add(self, document: Document) -> None:
        if document.dropped_because:
            action = self.options.problems["unreadable"]
            problem = Problem("unreadable", self.source.uri, 0, document.dropped_because, action)
            _send(self.out, PROBLEM, json.dumps(problem.to_json()).encode())
            return
        self.documents.append(document)
        self.chars += len(document.text)
        if self.chars >= _BATCH_CHARS:
            self.flush()

    def flush(self) -> None:
        documents, self.documents, self.chars = self.documents, [], 0
        if documents:
            _send(self.out, BATCH, _pack(documents, self.source))


def _pack(documents: list[Document], source: SourceFile) -> bytes:
    for document in documents:
        document.tags.setdefault("format", suffix_of(source.uri))
        if source.licence:
            document.tags.setdefault("licence", source.licence)
        document.text = document.text.encode("utf-8", "replace").decode()  # a parser may give half a surrogate pair
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as stream:
        stream.write_batch(to_batch(documents))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _send(out: IO[bytes], kind: bytes, body: bytes) -> None:
    out.write(HEAD.pack(kind, len(body)))
    out.write(body)
    out.flush()


def _address_bytes() -> int:
    """The address space in use; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
