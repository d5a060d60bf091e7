"""`Progress`: where a run stands, in every checkpoint and every event; and the clock it is measured by."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from espalier.train.plan import Cursor


@dataclass(slots=True)
class Progress:
    """Where a run stands; saved in every checkpoint."""

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    tokens: int = 0
    supervised_tokens: int = 0
    loss_first: float | None = None  # None = no step yet
    loss_last: float | None = None
    loss_smooth: float | None = None  # mean of about the last 20 steps
    validation_loss: float | None = None  # None = nothing to validate on
    validation_figures: dict[str, float] = field(default_factory=dict)  # accuracy, margin ..., as the objective names
    best_loss: float | None = None
    best_figures: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    looks_without_gain: int = 0
    stopped_early: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__slots__ if name != "cursor"}
        return {**values, "cursor": self.cursor.to_json()}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Progress:
        values = {name: state[name] for name in cls.__slots__ if name != "cursor" and name in state}
        return cls(**values, cursor=Cursor(**state["cursor"]))

    def count(self, loss: float, *, tokens: int, supervised_tokens: int) -> None:
        """One more step is done."""
        self.step += 1
        self.tokens += tokens
        self.supervised_tokens += supervised_tokens
        self.loss_last = loss
        self.loss_first = loss if self.loss_first is None else self.loss_first
        self.loss_smooth = loss if self.loss_smooth is None else 0.95 * self.loss_smooth + 0.05 * loss


class Clock:
    """Wall and CPU seconds of this process on top of what earlier ones spent."""

    def __init__(self, progress: Progress) -> None:
        self._wall_s, self._cpu_s = progress.wall_s, progress.cpu_s
        self._tokens, self._supervised = progress.tokens, progress.supervised_tokens
        self._wall_start_s, self._cpu_start_s = time.monotonic(), time.process_time()

    def read(self, progress: Progress) -> None:
        """Bring the progress's seconds up to now."""
        progress.wall_s = self._wall_s + time.monotonic() - self._wall_start_s
        progress.cpu_s = self._cpu_s + time.process_time() - self._cpu_start_s

    def rates(self, progress: Progress) -> tuple[float, float]:
        """Tokens and supervised tokens a second since this process began."""
        spent_s = progress.wall_s - self._wall_s
        if spent_s <= 0:
            return 0.0, 0.0
        return (progress.tokens - self._tokens) / spent_s, (progress.supervised_tokens - self._supervised) / spent_s


def peak_memory_bytes() -> int:
    """The most memory this process has held: of the GPU where there is one, else of the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # On Linux ru_maxrss outlives exec: it would be that of whoever started this process. proc(5): VmHWM is its own.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0
