"""The process a user's function runs in: `python -P -m espalier.data.clean.sandboxed`, spoken to by `sandbox`.

First it gives up what it can: the network and every other process (namespaces of its own, where Linux lets it), then
memory, core dumps and large files. Only then is the user's file run. What it prints goes nowhere.

Frames, both ways: 8 bytes of length, then the body. In: the task as JSON, then batches as Arrow IPC. Out: a JSON note
(isolated, error) when ready, then one answer for each batch.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

LENGTH = struct.Struct("<Q")
PROGRESS = struct.Struct("<q")  # in a file shared with the asker: the row at work, from 0; -1 while there is none
_NEW_USER, _NEW_PID, _NEW_NET, _NEW_IPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000
_DIE_WITH_PARENT = 1
CHANGEABLE = ("text", "tags", "messages", "chosen", "rejected")


class WrongAnswer(Exception):
    """What the function returned is none of what it may return."""


def main() -> None:
    """Serve batches until the input ends."""
    _die_with_parent()
    source = os.fdopen(os.dup(0), "rb")
    task = json.loads(read_frame(source))
    isolated = isolate()
    out = os.fdopen(os.dup(1), "wb")
    progress = mmap.mmap(task["progress"], PROGRESS.size)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    function, error = None, None
    if isolated or task["isolation"] != "required":
        confine(task["limit_bytes"], task["cpu_s"])
        function, error = load_function(task)
    write_frame(out, json.dumps({"isolated": isolated, "error": error}).encode())
    if function is None:
        return
    serve = serve_batch if task["takes"] == "batch" else serve_rows
    while body := read_frame(source):
        random.seed(0)
        answer = serve(function, body, task, progress)
        PROGRESS.pack_into(progress, 0, -1)
        write_frame(out, answer)


def isolate() -> bool:
    """Leave the network and the sight of other processes; False where the system does not allow it.

    In a namespace of process ids everything that was started inside ends with its first process.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC | _NEW_PID) != 0:
        return False
    inner = os.fork()
    if inner:
        os.closerange(0, 3)
        _, status = os.waitpid(inner, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0x7F)
    _die_with_parent()
    return True


def confine(limit_bytes: int, cpu_s: int) -> None:
    """No core dump, no file larger than the limit, so much memory over what Python and Arrow take, and an end."""
    import pyarrow as pa

    pa.array([""])  # what it allocates once is not the user's
    used = 0
    with suppress(OSError), open("/proc/self/statm") as status:  # noqa: PTH123 (before pathlib is needed)
        used = int(status.read().split()[0]) * resource.getpagesize()
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, limit_bytes), (resource.RLIMIT_CPU, cpu_s)]
    if used:
        limits.append((resource.RLIMIT_AS, used + limit_bytes))
    for kind, most in limits:
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def load_function(task: dict[str, Any]) -> tuple[Callable[..., Any] | None, dict[str, str] | None]:
    """The user's function, or what is wrong with the file."""
    scope: dict[str, Any] = {"__name__": task["name"].removesuffix(".py"), "__file__": task["name"]}
    try:
        exec(compile(task["source"], task["name"], "exec"), scope)
    except BaseException as error:  # noqa: BLE001 - foreign code: whatever it raises is reported, exits included
        return None, describe_error(error, task["name"])
    function = scope.get(task["function"])
    if not callable(function):
        known = ", ".join(sorted(name for name, value in scope.items() if callable(value) and name[0] != "_"))
        message = f"there is no function `{task['function']}`; there is: {known or 'none'}"
        return None, {"message": message, "where": task["name"]}
    return function, None


def serve_rows(function: Callable[..., Any], body: bytes, task: dict[str, Any], progress: mmap.mmap) -> bytes:
    """Call the function for each row; an answer a row."""
    import pyarrow as pa

    with pa.ipc.open_stream(body) as stream:
        table = stream.read_all()
    rows = table.to_pylist()
    answers: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        PROGRESS.pack_into(progress, 0, number)
        row["tags"] = dict(row["tags"])
        before = {name: row[name] for name in row if name not in CHANGEABLE}
        try:
            answers.append(check_answer(function(row, **task["arguments"]), before))
        except BaseException as error:  # noqa: BLE001 - as above
            answers.append({"error": json.dumps(describe_error(error, task["name"]))})
    return pack(pa.RecordBatch.from_pylist(answers, schema=answer_schema(table.schema)))


def serve_batch(function: Callable[..., Any], body: bytes, task: dict[str, Any], progress: mmap.mmap) -> bytes:
    """Call the function once; the batch it gives, or an answer with its error."""
    import pyarrow as pa

    with pa.ipc.open_stream(body) as stream:
        [batch] = stream.read_all().to_batches()
    PROGRESS.pack_into(progress, 0, 0)
    try:
        made = function(batch, **task["arguments"])
        if isinstance(made, pa.Table):
            made = made.combine_chunks().to_batches()[0] if len(made) else batch.slice(0, 0)
        if not isinstance(made, pa.RecordBatch):
            raise WrongAnswer(f"it returned {type(made).__name__}, not a pyarrow.RecordBatch")
        names = batch.schema.names
        if sorted(made.schema.names) != sorted(names):
            raise WrongAnswer(f"it returned the columns {made.schema.names}, not {names}")
        return pack(made.select(names).cast(batch.schema))
    except BaseException as error:  # noqa: BLE001 - as above
        failed = {"error": json.dumps(describe_error(error, task["name"]))}
        return pack(pa.RecordBatch.from_pylist([failed], schema=answer_schema(batch.schema)))


def check_answer(answer: Any, before: dict[str, Any]) -> dict[str, Any]:
    """What a row's answer changes, in the columns of `answer_schema`; raises WrongAnswer."""
    if answer is None:
        return {"drop": "dropped"}
    if isinstance(answer, str):
        return {"text": answer.encode("utf-8", "replace").decode()}
    if not isinstance(answer, dict):
        raise WrongAnswer(f"it returned {type(answer).__name__}, not a text, a dict or None")
    changed: dict[str, Any] = {}
    for name, value in answer.items():
        if name in before:
            if value != before[name]:
                raise WrongAnswer(f"it returned another `{name}`, which cannot be changed")
        elif name == "drop":
            if value is not None and not isinstance(value, str):
                raise WrongAnswer(f"`drop` is {type(value).__name__}, not a text")
            changed[name] = value
        elif name == "tags" and isinstance(value, dict):
            changed[name] = [(str(key), str(item)) for key, item in sorted(value.items())]
        elif name == "text" and isinstance(value, str):
            changed[name] = value.encode("utf-8", "replace").decode()
        elif name in ("messages", "chosen", "rejected") and isinstance(value, list):
            changed[name] = [check_message(message, name) for message in value]
        else:
            raise WrongAnswer(f"`{name}` is {type(value).__name__}; it may return {', '.join(CHANGEABLE)} and drop")
    return changed


def check_message(message: Any, name: str) -> dict[str, Any]:
    """One turn with exactly its fields; raises WrongAnswer."""
    sound = (
        isinstance(message, dict)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
        and isinstance(message.get("weight"), int | float | None)
        and message.keys() <= {"role", "content", "weight"}
    )
    if not sound:
        raise WrongAnswer(f"`{name}` holds {message!r:.60}, which is no dict of role, content and weight")
    return {"role": message["role"], "content": message["content"], "weight": message.get("weight")}


def describe_error(error: BaseException, name: str) -> dict[str, str]:
    """What went wrong, and the line of the user's file it went wrong in."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    if isinstance(error, SyntaxError) and error.filename == name:
        lines.append(error.lineno)
    message = str(error) if isinstance(error, WrongAnswer) else f"{type(error).__name__}: {error}".removesuffix(": ")
    return {"message": message[:500], "where": f"{name}:{lines[-1]}" if lines else name}


def answer_schema(schema: pa.Schema) -> pa.Schema:
    """One row an answer, to rows of `schema`; null leaves what was."""
    import pyarrow as pa

    changed = [(name, schema.field(name).type) for name in CHANGEABLE]
    return pa.schema([*changed, ("drop", pa.string()), ("error", pa.string())])


def pack(batch: pa.RecordBatch) -> bytes:
    """A batch as an Arrow IPC stream."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_frame(source: IO[bytes]) -> bytes:
    """The next frame's body; empty when the other end has closed."""
    head = source.read(LENGTH.size)
    return source.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""


def write_frame(out: IO[bytes], body: bytes) -> None:
    """Send a body with its length before it."""
    out.write(LENGTH.pack(len(body)))
    out.write(body)
    out.flush()


def _die_with_parent() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


if __name__ == "__main__":
    main()
