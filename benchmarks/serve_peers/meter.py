"""What every contender of benchmarks/serve.py measures alike, in its own process: tokens, times, memory, answers.

A contender makes a Meter, warms up, then answers all questions between `begin` and `end`, noting each question asked
and each token of its answer. Knows no contender.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Answer:
    """One question's clock readings: when it was asked, and at each token (wall, CPU of this process)."""

    asked_s: float = 0.0
    tokens: list[tuple[float, float]] = field(default_factory=list)
    text: str = ""


class Meter:
    """One contender's figures on one job."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.questions: list[dict[str, Any]] = job["questions"]
        self.answers = [Answer() for _ in self.questions]

    def begin(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def ask(self, number: int) -> None:
        """Question `number` is put now."""
        self.answers[number].asked_s = time.perf_counter()

    def note(self, number: int, count: int = 1) -> None:
        """So many tokens of its answer have come now."""
        self.answers[number].tokens += [(time.perf_counter(), time.process_time())] * count

    def end(self) -> None:
        self._cpu_s, self._wall_s = time.process_time() - self._cpu_s, time.perf_counter() - self._wall_s

    def report(self, **more: Any) -> dict[str, Any]:
        """Everything measured. Raises ValueError when an answer is shorter or longer than was asked."""
        for answer, question in zip(self.answers, self.questions, strict=True):
            if len(answer.tokens) != question["tokens"]:
                raise ValueError(f"an answer has {len(answer.tokens)} tokens where {question['tokens']} were asked for")
        tokens = sum(len(answer.tokens) for answer in self.answers)
        first = sorted(answer.tokens[0][0] - answer.asked_s for answer in self.answers)
        gaps = sorted(b[0] - a[0] for answer in self.answers for a, b in pairwise(answer.tokens))
        alone_s = sum(answer.tokens[-1][1] - answer.tokens[0][1] for answer in self.answers)
        return {
            "tokens": tokens,
            "cpu_s": self._cpu_s,
            "wall_s": self._wall_s,
            "tokens_per_cpu_s": tokens / self._cpu_s,
            "ttft_ms": {"p50": 1000 * quantile(first, 0.5), "p99": 1000 * quantile(first, 0.99)},
            "itl_ms": {"p50": 1000 * quantile(gaps, 0.5), "p99": 1000 * quantile(gaps, 0.99)},
            "decode_per_cpu_s": (tokens - len(self.answers)) / alone_s if alone_s else None,  # of use at one stream
            "peak_mb": read_mb("VmHWM"),
            "answers": [answer.text for answer in self.answers],
            **more,
        }


def quantile(ordered: list[float], share: float) -> float:
    """Of ascending numbers, the nearest one."""
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))] if ordered else 0.0


def read_mb(name: str) -> float:
    """A line of this process's status: VmHWM (its peak, with mapped files)."""
    found = re.search(rf"^{name}:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
