"""The process a step runs in: `python -m espalier.pipeline.child FD`, started by `executors/local.py` only.

Reads one task from stdin, runs the step, writes what it says to descriptor FD as JSON lines. When stdin ends, the
parent is dead: so is this process, and all it started, at once. Nothing is lost by that: outputs count only once the
parent has recorded them. Asked to stop (SIGTERM), the step's next event raises Interrupted in it, so that it can save
how far it came; one that reports nothing for a while is ended all the same.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from typing import IO, Any

from espalier.core.errors import Interrupted
from espalier.pipeline.work import run_step

_LEAVE_S = 3.0  # what a step has to report an event in, once it is to stop


def main() -> None:
    """Run the one task. The exit status says nothing; the last line on the channel does."""
    request = json.loads(_read_line())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with open(int(sys.argv[1]), "wb") as stream:  # noqa: PTH123 - a descriptor, not a path
        send = _Channel(stream)
        _hear_of_stop(send)
        error = run_step(request, send)
        if error is not None:
            send("error", error=error.to_json())
        send("end", cpu_s=_cpu_s())


class _Channel:
    """JSON lines to the parent; whole lines whatever thread writes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._end: threading.Timer | None = None

    def stop(self) -> None:
        """The next event raises Interrupted in whoever reports it; where none comes, this process ends."""
        if self._end is None:
            self._end = threading.Timer(_LEAVE_S, os.killpg, (0, signal.SIGKILL))
            self._end.daemon = True
            self._end.start()

    def __call__(self, what: str, **said: Any) -> None:
        if self._end is not None and what == "event":
            self._end.cancel()  # it is leaving by itself; should that take too long, the parent ends it
            raise Interrupted("stopped", hint="run the same command again: it goes on from here")
        line = json.dumps({"what": what, **said}, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()


def _hear_of_stop(send: _Channel) -> None:
    """Have SIGTERM told to `send` at once, whatever the main thread computes: Python's handlers would wait for it."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)

    def hear() -> None:
        while (told := os.read(reads, 1)) and told[0] != signal.SIGTERM:
            pass
        send.stop()

    threading.Thread(target=hear, daemon=True).start()


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
