"""A metric somebody wrote in Python: one function of a file, run in a process of its own.

    # rewards.py
    def score(answer, case):
        return 1.0 if case["reference"] in answer else 0.0

`case` has `id`, `question` (a list of role and content), `reference` and `tags`. What comes back is a number, or a dict
of `score` and `why`. The process holds mistakes and endless loops; it is no wall against malice: the function may do
what its user may do. `called` is the other end.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, Literal

from espalier.core.errors import InvalidInput, NotFound
from espalier.metrics.metric import Answered, Measurement, Metric, Ratio

START_S = 60.0  # for the process to come up and run the file, on a busy machine
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "HOME", "SYSTEMROOT")


def python(function: str, unit: Literal["ratio", "score"] = "ratio", limit_s: float = 10.0) -> Metric:
    """What `function` (`rewards.py:score`) says of an answer; a "ratio" is from 0 to 1, a "score" any finite number.

    Raises InvalidInput for another form of `function`, NotFound without the file; while measuring, InvalidInput naming
    the line when the function fails, gives no number, or takes longer than `limit_s`.
    """
    path, _, name = function.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise InvalidInput(
            f"{function!r} names no function of a Python file", where="python.function", hint="write `rewards.py:score`"
        )
    file = Path(path)
    if not file.is_file():
        raise NotFound(f"no Python file {path}", hint="`function` is relative to the recipe")
    process = _Process(file.resolve(), name, limit_s)

    def measure(case: Answered) -> Measurement:
        turns = [{"role": turn.role, "content": turn.content} for turn in case.question]
        facts = {"id": case.id, "question": turns, "reference": case.reference, "tags": dict(case.tags)}
        said = process.ask({"answer": case.answer, "case": facts})
        return Measurement(float(said["score"]), why=str(said["why"]))

    return Ratio(name, measure, unit=unit)


class _Process:
    """The function's process: started when first asked, ended with this object or when it takes too long."""

    def __init__(self, file: Path, function: str, limit_s: float) -> None:
        self._file, self._function, self._limit_s = file, function, limit_s
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The function's answer. Raises InvalidInput."""
        with self._lock:
            process = self._running or self._start()
            said = self._exchange(process, question, self._limit_s)
        if "error" in said:
            raise self._failed(said["error"], said["where"])
        return said

    def _start(self) -> subprocess.Popen[bytes]:
        env = {name: os.environ[name] for name in _KEPT if name in os.environ}
        env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "espalier.metrics.called", str(self._file), self._function],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, bufsize=0,
        )  # fmt: skip
        weakref.finalize(self, _end, process)
        self._running = process
        ready = self._read(process, START_S)
        if "error" in ready:
            self._running = None
            raise self._failed(ready["error"], ready["where"])
        return process

    def _exchange(self, process: subprocess.Popen[bytes], question: dict[str, Any], limit_s: float) -> dict[str, Any]:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError:
            self._running = None
            raise self._failed("its process has ended", self._file.name) from None
        return self._read(process, limit_s)

    def _read(self, process: subprocess.Popen[bytes], limit_s: float) -> dict[str, Any]:
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], limit_s)[0]:
                self._running = None
                _end(process)
                raise self._failed(f"took more than {limit_s:g} s", self._file.name)
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                self._running = None
                raise self._failed("ended its process", self._file.name)
            line += piece
        found: dict[str, Any] = json.loads(line)
        return found

    def _failed(self, why: str, where: str) -> InvalidInput:
        return InvalidInput(f"{self._function}: {why}", where=where, hint=f"mend {self._file.name}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
