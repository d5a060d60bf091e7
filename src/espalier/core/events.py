"""Progress is data: one stream of events feeds the terminal, SSE, the web page, tests and `events.jsonl`.

Kinds are dotted, the first part names the stage: `run.started`, `step.progress`, `train.step`, `eval.case`, `log`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from espalier.core.ids import now_ms


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at `at_ms`; `data` holds JSON values only, with units in its keys."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    at_ms: int = field(default_factory=now_ms)

    def to_json(self) -> str:
        """One line, no newline."""
        return json.dumps({"kind": self.kind, "at_ms": self.at_ms, **self.data}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Event:
        """The inverse of `to_json`."""
        data = json.loads(line)
        return cls(kind=data.pop("kind"), at_ms=data.pop("at_ms"), data=data)


Emit = Callable[[Event], None]

# What a followed stream says while nothing happens, so that a reader who has left is noticed; never written to a log.
IDLE = "idle"


def ignore(event: Event) -> None:
    """An `Emit` for callers who do not watch."""
