"""A step in a child process of its own: a crash, a leak or a changed global of one step touches no other.

The child gets its task on stdin and keeps that pipe open: when this process dies, by kill -9 too, the child sees the
end of it and dies as well. It answers on a second pipe, a JSON line per event, metric or error; what it prints goes
to the run's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.core.errors import EspalierError, Interrupted
from espalier.core.events import Emit
from espalier.pipeline.executors.port import Outcome, Stop, Task
from espalier.pipeline.executors.staging import Report, stage, take_in
from espalier.store.disk import storage_errors
from espalier.store.store import Store

_POLL_S = 0.2
_GRACE_S = 5.0  # between being done and being gone
_SAVING_S = 20.0  # between being asked to stop and being made to: a checkpoint may have to be written


class LocalExecutor:
    """Executes tasks on this machine, one child process each."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def execute(self, task: Task, emit: Emit, stop: Stop) -> Outcome:
        """Run the task and wait. Raises Interrupted when stopped (Ctrl-C or `stop`); then the child is dead."""
        report = Report(task, emit)
        with stage(self._store, task) as request:
            child = _Child(task, request, self._log(task.run), report)
            try:
                child.watch(stop)
                return take_in(self._store, task, request, report)
            finally:
                child.kill()

    def _log(self, run: str) -> Path:
        folder = self._store.runs.folder(run)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder / "log.txt"


class _Child:
    """One child process, and what it has said so far."""

    def __init__(self, task: Task, request: Mapping[str, Any], log: Path, report: Report) -> None:
        self._task = task
        self._log = log
        self._report = report
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        answers, to_parent = os.pipe()
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "espalier.pipeline.child", str(to_parent)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    cwd=task.folder,
                    env={**os.environ, "PYTHONHASHSEED": "0"},
                    pass_fds=(to_parent, *task.pass_fds),
                    start_new_session=True,  # a Ctrl-C is for us; we stop the child in our own way
                )
        finally:
            os.close(to_parent)
        threading.Thread(target=self._read, args=(answers,), daemon=True).start()
        with contextlib.suppress(BrokenPipeError):  # it died at once; `watch` says so
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()

    def watch(self, stop: Stop) -> None:
        """Pass on what the child says until it has ended. Raises Interrupted."""
        try:
            while not self._report.ended:
                if stop():
                    raise KeyboardInterrupt
                try:
                    line = self._lines.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if line is None:
                    break
                self._report.take(**json.loads(line))
        except KeyboardInterrupt:
            self.kill()
            raise Interrupted("stopped", hint="the same command goes on from here: finished steps are kept") from None
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._wait()
        if not self._report.ended:
            self._report.outcome.error = self._explain_death()

    def kill(self) -> None:
        """End the child and whatever it started: asked first, made to after a grace."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_SAVING_S)
        with contextlib.suppress(OSError):
            self._stdin.close()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    def _wait(self) -> None:
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:  # it said it was done, but a thread of its own keeps it
            self.kill()

    def _read(self, answers: int) -> None:
        """Hand over what the child says line by line, and None when it is dead and nothing of it is left in the pipe.

        The pipe's end is no sign of that: what the child has started may hold it open.
        """
        waiting = select.poll()
        waiting.register(answers, select.POLLIN)
        rest = b""
        with open(answers, "rb", buffering=0) as pipe:
            while True:
                dead = self._process.poll() is not None  # asked first: then what it said is in the pipe by now
                if not waiting.poll(0 if dead else _POLL_S * 1000):
                    if dead:
                        break
                    continue
                piece = pipe.read(1 << 16)
                if not piece:
                    self._process.wait()
                    break
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._lines.put(line)
        self._lines.put(None)

    def _explain_death(self) -> EspalierError:
        code = self._process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        memory = "; perhaps the machine ran out of memory" if code == -signal.SIGKILL else ""
        return EspalierError(
            f"{self._task.step} {how} before it was done{memory}", hint=f"its output is in {self._log}"
        )
