"""A lock on a file that lives as long as the processes holding it: kill -9 frees it, and no pid is ever compared."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from espalier.core.errors import Interrupted
from espalier.pipeline.executors.port import Stop, never_stop
from espalier.store.disk import storage_errors

_POLL_S = 0.1


class FileLock:
    """An exclusive flock on `path`. A child that is given `descriptor` holds it too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                    return False
                if self._is_at_path(descriptor):
                    self.descriptor = descriptor
                    return True
                os.close(descriptor)  # its holder took the file away between our open and our lock

    def acquire(self, stop: Stop = never_stop) -> None:
        """Wait for the lock. Raises Interrupted when `stop` says so."""
        while not self.try_acquire():
            if stop():
                raise Interrupted("stopped while waiting for another run of the same step", hint="run it again")
            time.sleep(_POLL_S)

    def release(self) -> None:
        """Let go and take the file away."""
        if self.descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
            self.descriptor = -1

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            here, mine = self.path.stat(), os.fstat(descriptor)
        except FileNotFoundError:
            return False
        return (here.st_dev, here.st_ino) == (mine.st_dev, mine.st_ino)
