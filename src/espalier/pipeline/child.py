"""The process a step runs in: `python -m espalier.pipeline.child FD`, started by `executors/local.py` only.

Reads one task from stdin, runs the step, writes what it says to descriptor FD as JSON lines. When stdin ends, the
parent is dead: so is this process, and all it started, at once. Nothing is lost by that: outputs count only once the
parent has recorded them.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.core.errors import EspalierError, MissingExtra, StorageFull
from espalier.pipeline.catalog import find_step
from espalier.pipeline.context import Channel, ChildContext


def main() -> None:
    """Run the one task. The exit status says nothing; the last line on the channel does."""
    task = json.loads(_read_line())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with open(int(sys.argv[1]), "wb") as stream:  # noqa: PTH123 - a descriptor, not a path
        channel = Channel(stream)
        error = _run(task, channel)
        if error is not None:
            channel.send("error", error=error.to_json())
        channel.send("end", cpu_s=_cpu_s())


def _run(task: Mapping[str, Any], channel: Channel) -> EspalierError | None:
    """Run the step; what it raised, as one of our errors, its traceback in the log."""
    try:
        step = find_step(task["step"], Path(task["folder"]))
        context = ChildContext(task, channel)
        step.function(context, step.spec.model_validate(task["spec"]))
        context.check_outputs()
    except EspalierError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a step is anyone's code: its crash becomes the run's error
        traceback.print_exc()
        return _translate(error, task["step"])
    return None


def _translate(error: Exception, step: str) -> EspalierError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{step}: the disk is full ({error.filename or 'while writing'})", hint="free some space")
    if isinstance(error, ModuleNotFoundError):
        return MissingExtra(f"{step} needs the package {error.name}", hint=f"pip install {error.name}")
    if isinstance(error, MemoryError):
        return EspalierError(f"{step} ran out of memory", hint="use a smaller batch or a larger machine")
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}:{last.lineno}"
    return EspalierError(
        f"{step} crashed: {type(error).__name__}: {error}", where=where, hint="the traceback is in its log"
    )


def _read_line() -> bytes:
    """One line, byte-exact: a buffered reader would hold a lock on stdin that the watching thread needs at exit."""
    parts: list[bytes] = []
    while not (parts and parts[-1].endswith(b"\n")):
        part = os.read(0, 1 << 16)
        if not part:
            sys.exit("no task on stdin; this module is started by a pipeline")
        parts.append(part)
    return b"".join(parts)


def _die_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _cpu_s() -> float:
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime, 3)


if __name__ == "__main__":
    main()
