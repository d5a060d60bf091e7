"""Which process holds a reservation, and whether it still lives: a lock file that the kernel frees however it dies.

A process id can be used again; a lock cannot outlive its process. The lock tells processes of one machine apart.
Where the file is absent (another machine on one database), only time tells, and `budget.py` waits for it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Literal

from espalier.core.ids import make_id

Life = Literal["alive", "dead", "unknown"]


class Holder:
    """This process, as reservations name it. Keep it for as long as the process answers requests."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.id = make_id("holder")
        self._path = folder / self.id
        unlocked = folder / f".{self.id}"  # takes its name when it is locked: nobody finds it alive but unlocked
        self._descriptor = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        unlocked.rename(self._path)

    def look_at(self, other: str) -> Life:
        """Whether the holder called `other` lives."""
        if other == self.id:
            return "alive"
        try:
            descriptor = os.open(self._path.parent / Path(other).name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return "unknown"
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "alive"
        finally:
            os.close(descriptor)
        return "dead"

    def bury_the_dead(self) -> None:
        """Take away the files of dead holders, once nothing is held in their names."""
        for path in self._path.parent.glob("holder_*"):
            if self.look_at(path.name) == "dead":
                path.unlink(missing_ok=True)

    def close(self, *, settled: bool) -> None:
        """Let go. The file goes too when nothing is held in this name; else it stays, to be found dead."""
        if settled:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
