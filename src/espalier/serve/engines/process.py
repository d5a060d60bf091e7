"""`ServerProcess`: another program as a child of ours: started, waited for, and ended with all it started itself.

Its output goes to a file. Should we die without a word, the next start ends what we left behind: a file beside the log
says which process that was. Knows nothing of what the program does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from espalier.core.errors import MissingExtra, Unavailable

_LOOK_EVERY_S = 0.25
_TAIL_BYTES = 2000


class ServerProcess:
    """One program, at most once at a time. `folder` gets `server.log` and `server.pid`."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.log = folder / "server.log"
        self._note = folder / "server.pid"
        self._command = list(command)
        self._environ = dict(environ)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it, in a process group of its own. Raises MissingExtra when there is no such program."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._end_left_behind()
        with self.log.open("ab") as log:
            os.fchmod(log.fileno(), 0o600)
            try:
                child = self._child = subprocess.Popen(
                    self._command,
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise MissingExtra(
                    f"{self._command[0]} cannot be started: {error.strerror}",
                    hint="install it, or say in the engine's options which command starts it",
                ) from None
        with contextlib.suppress(psutil.Error):  # it was stopped meanwhile, and nothing is left to be noted
            born = psutil.Process(child.pid).create_time()
            self._note.write_text(json.dumps({"pid": child.pid, "born": born}), "utf-8")

    def wait(self, healthy: Callable[[], bool], timeout_s: float) -> None:
        """Return when it is healthy. Raises Unavailable when it ends before, or takes longer; it is ended then."""
        deadline = time.monotonic() + timeout_s
        while not healthy():
            if not self.running:
                raise Unavailable(f"{self._command[0]} ended at its start: {self._tail()}", hint=f"read {self.log}")
            if time.monotonic() > deadline:
                self.stop(0.0)
                raise Unavailable(
                    f"{self._command[0]} was not ready after {timeout_s:.0f} s",
                    hint=f"read {self.log}; a longer start_timeout_s may be needed",
                )
            time.sleep(_LOOK_EVERY_S)

    def stop(self, grace_s: float) -> None:
        """Ask it to end, wait, then end it and all it started."""
        child, self._child = self._child, None
        if child is not None:
            _end_group(child.pid, child.wait, grace_s)
        self._note.unlink(missing_ok=True)

    def _end_left_behind(self) -> None:
        try:
            note = json.loads(self._note.read_text("utf-8"))
            left = psutil.Process(int(note["pid"]))
            same = abs(left.create_time() - float(note["born"])) < 1.0  # ids are given out again
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return
        if same:
            _end_group(left.pid, left.wait, 0.0)

    def _tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        return " | ".join(lines[-3:])[-500:] or "it said nothing"


def find_free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_group(leader: int, wait: Callable[[float], object], grace_s: float) -> None:
    """SIGTERM to a process group, and SIGKILL to what is left of it after `grace_s`."""
    try:
        if grace_s > 0:
            os.killpg(leader, signal.SIGTERM)
            wait(grace_s)
    except (subprocess.TimeoutExpired, psutil.TimeoutExpired, ProcessLookupError):
        pass
    try:
        os.killpg(leader, signal.SIGKILL)  # its children, too, which need not have ended with it
        wait(grace_s + 10.0)
    except (subprocess.TimeoutExpired, psutil.TimeoutExpired, ProcessLookupError):
        pass
