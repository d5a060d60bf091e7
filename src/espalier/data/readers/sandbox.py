"""Foreign formats are read in a process of their own, with limits of memory, time and output, that may write no file.

One such process serves a process of ours: started when the first foreign file comes, kept for the next, ended and
replaced when a file crashes it, hangs in it or fills it. It shares no secret: its environment holds only what a program
needs to start. Does not know readers; `child` runs them.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from espalier.core.errors import EspalierError, InvalidInput, MissingExtra, Unavailable, from_json
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.plugin import place_reader
from espalier.data.readers.problem import Problem
from espalier.data.readers.source import SourceFile

BATCH, PROBLEM, END = b"B", b"P", b"E"
HEAD = struct.Struct("<cQ")  # kind of a frame, bytes of its body
MAX_OUTPUT_BYTES = 512 << 20  # of text and spans from one file
START_S = 60.0  # for the process to come up, on a busy machine
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TESSDATA_PREFIX", "LD_LIBRARY_PATH", "HF_HOME")
_SET = {
    "OMP_NUM_THREADS": "1",
    "OMP_THREAD_LIMIT": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve address space, which the limit counts
    "MALLOC_ARENA_MAX": "2",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class _Died(Exception):
    """The process ended, or had to be ended, while it read a file; the text is for the report."""


class _TooSlow(_Died):
    """It had to be ended because of the time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"reading took more than {seconds:g} s")


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    limits: tuple[int, float]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, request: dict[str, Any], seconds: float) -> list[tuple[bytes, bytes]]:
        """Frames up to the end frame; raises _Died."""
        deadline = time.monotonic() + seconds
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.mourn(seconds) from None
        frames: list[tuple[bytes, bytes]] = []
        left = MAX_OUTPUT_BYTES
        while not frames or frames[-1][0] != END:
            kind, size_bytes = HEAD.unpack(self._read(HEAD.size, deadline, seconds))
            left -= size_bytes
            if left < 0:
                self.kill()
                raise _Died(f"it gives more than {MAX_OUTPUT_BYTES} bytes of text")
            frames.append((kind, self._read(size_bytes, deadline, seconds)))
        return frames

    def _read(self, size_bytes: int, deadline: float, seconds: float) -> bytes:
        stream: IO[bytes] = self.process.stdout  # type: ignore[assignment]
        waiting = select.poll()  # not select(): a process of many files has descriptors beyond its reach
        waiting.register(stream, select.POLLIN)
        pieces, left = [], size_bytes
        while left:
            if not waiting.poll(1000 * max(0.0, deadline - time.monotonic())):
                self.kill()
                raise _TooSlow(seconds)
            piece = os.read(stream.fileno(), min(left, 1 << 20))
            if not piece:
                raise self.mourn(seconds)
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def mourn(self, seconds: float) -> _Died:
        """How the process ended, by itself or by its own alarm: that comes first where this process was held up."""
        code = self.process.wait()
        if code == -signal.SIGALRM:
            return _TooSlow(seconds)
        if code >= 0:
            return _Died(f"its reader ended with exit code {code}")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return _Died(f"it crashed its reader ({name})")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it: it leaves by itself when its input ends, unless it hangs."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with suppress(OSError):
                    stream.close()
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.kill()


# One for each process of ours, by its id: a forked worker must not speak to its parent's.
_children: dict[int, _Child] = {}
_starting = threading.Lock()


def read_apart(source: SourceFile, options: ReadOptions) -> Iterator[pa.RecordBatch | Problem]:
    """What the source's reader gives, from the other process.

    A file that crashes or exhausts its reader gives nothing; one whose reader raises gives what came before. Raises
    InvalidInput where the file cannot be read, Unavailable where that took too long, and MissingExtra where a package
    is absent, which is no property of the file.
    """
    group, name = place_reader(source.uri, options)
    request = {
        "path": str(source.path.absolute()),
        "uri": source.uri,
        "sha256": source.sha256,
        "licence": source.licence,
        "reader": [group, name],
        "options": options.to_json(),
    }
    try:
        frames = _ask(request, options)
    except _TooSlow as death:
        raise Unavailable(str(death), hint="raise `source.max_seconds`, or exclude it") from None
    except _Died as death:
        raise InvalidInput(str(death), hint="open it with the program it was made with, or exclude it") from None
    for kind, body in frames:
        if kind == BATCH:
            with pa.ipc.open_stream(body) as stream:
                yield from stream
        elif kind == PROBLEM:
            yield Problem.from_json(json.loads(body))
        elif error := json.loads(body).get("error"):
            raise _to_error(error)


def close_sandbox() -> None:
    """End this process's reading process, if it has one; the next foreign file starts another."""
    child = _children.pop(os.getpid(), None)
    if child:
        child.close()


def _ask(request: dict[str, Any], options: ReadOptions) -> list[tuple[bytes, bytes]]:
    child = _find_child(options)
    with child.lock:
        try:
            frames = child.read(request, options.max_seconds)
        except _Died:
            close_sandbox()
            raise
        if json.loads(frames[-1][1])["retire"]:
            close_sandbox()
    return frames


def _find_child(options: ReadOptions) -> _Child:
    limits = (options.max_memory_bytes, options.max_seconds)
    with _starting:
        child = _children.get(os.getpid())
        if child and (child.limits != limits or child.process.poll() is not None):
            close_sandbox()
            child = None
        if child is None:
            child = _start(limits)
            _children[os.getpid()] = child
            atexit.register(close_sandbox)
    return child


def _start(limits: tuple[int, float]) -> _Child:
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    env |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **_SET}
    command = [sys.executable, "-m", "espalier.data.readers.child", str(limits[0]), str(limits[1])]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, bufsize=0
    )
    child = _Child(process, limits)
    try:
        child._read(HEAD.size, time.monotonic() + START_S, START_S)
    except _Died as death:
        child.close()
        raise EspalierError(f"the process that reads documents did not start: {death}") from None
    return child


def _to_error(error: dict[str, str]) -> EspalierError:
    found = from_json(error)
    return found if isinstance(found, MissingExtra | InvalidInput) else InvalidInput(found.message, hint=found.hint)
