"""Runs a user's function in a process of its own, one for each batch, and ends it whatever it does.

A fresh process for each batch: what a function remembers cannot travel from one batch to the next, so results do not
depend on who worked on what. Its working folder is empty and goes with it; its environment holds no secret; what it
starts ends with it. `sandboxed` is the other end. This keeps mistakes and runaways in; it is no wall against malice:
the function may read the files its user may read.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import pyarrow as pa

from espalier.core.errors import InvalidInput, Unavailable
from espalier.data.clean.sandboxed import LENGTH, PROGRESS, answer_schema, pack
from espalier.data.flow.batch import SCHEMA

START_S = 60.0  # for the process to come up and run the file, on a busy machine
GROUP_ROWS, GROUP_BYTES = 256, 4 << 20  # rows sent at once: so much is done again when one of them ends the process
_POLL_S = 0.05
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "SYSTEMROOT")
_SET = {
    "PYTHONHASHSEED": "0",  # the order of a set is part of a function's answer
    "PYTHONDONTWRITEBYTECODE": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve address space, which the limit counts
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Task:
    """The function and its limits. `name` is the file as messages call it."""

    source: str
    name: str
    function: str
    takes: str
    arguments: dict[str, Any]
    limit_s: float
    limit_bytes: int
    isolation: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer. kind: "failed", "crashed" or "took too long"."""

    kind: str
    message: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class _Died(Exception):
    """The process ended, or had to be ended, at a row of what it was sent."""

    def __init__(self, kind: str, message: str, row: int) -> None:
        super().__init__(message)
        self.kind, self.message, self.row = kind, message, row


def run_rows(task: Task, batch: pa.RecordBatch, max_deaths: int) -> Iterator[dict[str, Any] | Failure]:
    """An answer for each row, in order: what changes, or why there is none.

    Raises InvalidInput for a file that cannot be run, or when the process dies more than `max_deaths` times, and
    Unavailable where isolation is required and the system has none.
    """
    deaths, schema = 0, answer_schema(SCHEMA)
    process = _Process(task, len(batch))
    try:
        for first, length in _cut_groups(batch):
            found: dict[int, dict[str, Any] | Failure] = {}
            pending = list(range(first, first + length))
            while pending:
                try:
                    answers = process.ask(batch.take(pa.array(pending)), schema, len(pending)).to_pylist()
                except _Died as death:
                    deaths += 1
                    if deaths > max_deaths:
                        message = f"{task.function} ended its process {deaths} times in one batch: {death.message}"
                        raise InvalidInput(message, where=task.name, hint="run it over one of the documents") from None
                    row = min(max(death.row, 0), len(pending) - 1)
                    found[pending.pop(row)] = Failure(death.kind, death.message, task.name)
                    process.close()
                    process = _Process(task, len(batch))
                    continue
                found |= {row: _read_answer(answer) for row, answer in zip(pending, answers, strict=True)}
                pending = []
            yield from (found[row] for row in range(first, first + length))
    finally:
        process.close()


def run_batch(task: Task, batch: pa.RecordBatch) -> pa.RecordBatch | Failure:
    """The batch a function over batches gives: some of the rows it was given, each once, in their order."""
    with _Process(task, len(batch)) as process:
        try:
            made = process.ask(batch, None, None)
        except _Died as death:
            return Failure(death.kind, death.message, task.name)
    if made.schema != SCHEMA:
        answer = _read_answer(made.to_pylist()[0])
        return answer if isinstance(answer, Failure) else Failure("failed", "it gave no batch", task.name)
    place = {identifier: row for row, identifier in enumerate(batch.column("id").to_pylist())}
    rows = [place.get(identifier, -1) for identifier in made.column("id").to_pylist()]
    if any(later <= earlier for earlier, later in zip([-1, *rows], rows, strict=False)):
        message = "it returned rows it was not given, twice, or in another order; a row is known by its `id`"
        return Failure("failed", message, task.name)
    return made


class _Process:
    """One process, in a session and a folder of its own; gone when closed, with all it has started."""

    def __init__(self, task: Task, rows: int) -> None:
        self._task = task
        # The clock ends it long before; this is for a process that nobody waits for any more.
        self._cpu_s = math.ceil(task.limit_s) * rows + int(START_S)
        self._folder = tempfile.TemporaryDirectory(prefix="espalier-", ignore_cleanup_errors=True)
        self._progress_file = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._progress_file.write(PROGRESS.pack(-1))
        self._progress_file.flush()
        self._progress = mmap.mmap(self._progress_file.fileno(), PROGRESS.size)
        self._process = self._start()
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, batch: pa.RecordBatch, schema: pa.Schema | None, rows: int | None) -> pa.RecordBatch:
        """Send a batch and return the answer to it, which is sound and, when asked for, of this schema and length."""
        self._write(pack(batch))
        body = self._read(self._task.limit_s)
        try:
            with pa.ipc.open_stream(body) as stream:
                [answer] = list(stream)
            answer.validate(full=True)
        except (pa.ArrowInvalid, OSError, ValueError):
            raise _Died("crashed", "its answer came back broken", self._row()) from None
        if (schema is not None and answer.schema != schema) or (rows is not None and len(answer) != rows):
            raise _Died("crashed", "its answer came back broken", self._row())
        return answer

    def close(self) -> None:
        """End the process and whatever it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        if not self._progress_file.closed:
            self._progress.close()
            self._progress_file.close()
        self._folder.cleanup()

    def _start(self) -> subprocess.Popen[bytes]:
        folder = self._folder.name
        env = {name: os.environ[name] for name in _KEPT if name in os.environ}
        env |= {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "HOME": folder,
            "TMPDIR": folder,
            **_SET,
        }
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "espalier.data.clean.sandboxed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=env,
            bufsize=0,
            pass_fds=(self._progress_file.fileno(),),
            start_new_session=True,
        )

    def _greet(self) -> None:
        """Hand over the task; raises Unavailable or InvalidInput when it cannot be run."""
        task = self._task
        try:
            self._write(
                json.dumps({**asdict(task), "progress": self._progress_file.fileno(), "cpu_s": self._cpu_s}).encode()
            )
            note = json.loads(self._read(START_S))
        except _Died as death:
            raise InvalidInput(f"its process {death.message}", where=task.name, hint="run the file by itself") from None
        if task.isolation == "required" and not note["isolated"]:
            hint = "allow unprivileged user namespaces, or set `isolation: wanted`"
            raise Unavailable("this system does not let a process give up its network", where=task.name, hint=hint)
        if note["error"]:
            raise InvalidInput(note["error"]["message"], where=note["error"]["where"], hint="mend the file")

    def _row(self) -> int:
        return int(PROGRESS.unpack_from(self._progress, 0)[0])

    def _write(self, body: bytes) -> None:
        data = memoryview(LENGTH.pack(len(body)) + body)
        stream = self._process.stdin
        assert stream is not None
        os.set_blocking(stream.fileno(), False)
        deadline = time.monotonic() + START_S
        while data:
            if not select.select([], [stream], [], max(0.0, deadline - time.monotonic()))[1]:
                raise _Died("took too long", "took too long to read its rows", -1)
            try:
                data = data[os.write(stream.fileno(), data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise _Died("crashed", self._say_end(), -1) from None

    def _read(self, limit_s: float) -> bytes:
        """One frame. The time starts again with each row; while there is none, it may take START_S."""
        [length] = LENGTH.unpack(self._read_bytes(LENGTH.size, limit_s))
        if length > self._task.limit_bytes + (64 << 20):
            raise _Died("crashed", "its answer came back broken", self._row())
        return self._read_bytes(length, limit_s)

    def _read_bytes(self, count: int, limit_s: float) -> bytes:
        stream = self._process.stdout
        assert stream is not None
        pieces: list[bytes] = []
        row, waited_s = self._row(), 0.0
        while count:
            looked_s = time.monotonic()
            if not select.select([stream], [], [], _POLL_S)[0]:
                # Where a look took long, this process stood still, maybe the whole machine: not the function's doing.
                waited_s += min(time.monotonic() - looked_s, 2 * _POLL_S)
                if self._row() != row:
                    row, waited_s = self._row(), 0.0
                elif waited_s > (limit_s if row >= 0 else START_S):
                    raise _Died("took too long", f"more than {limit_s:g} s", row)
                continue
            piece = os.read(stream.fileno(), min(count, 1 << 20))
            if not piece:
                raise _Died("crashed", self._say_end(), self._row())
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _say_end(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        return f"ended with exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"


def _cut_groups(batch: pa.RecordBatch) -> Iterator[tuple[int, int]]:
    """Where each group begins, and its rows."""
    sizes = pa.compute.binary_length(batch.column("text")).to_pylist()
    first, total = 0, 0
    for row, size in enumerate(sizes):
        if row > first and (row - first == GROUP_ROWS or total + size > GROUP_BYTES):
            yield first, row - first
            first, total = row, 0
        total += size
    if first < len(sizes):
        yield first, len(sizes) - first


def _read_answer(answer: dict[str, Any]) -> dict[str, Any] | Failure:
    if answer["error"] is not None:
        error = json.loads(answer["error"])
        return Failure("failed", str(error["message"]), str(error["where"]))
    return {name: value for name, value in answer.items() if value is not None}
