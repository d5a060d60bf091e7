"""`ReadOptions`: what decides, besides its bytes, what is read from a source; part of the key the outcome has."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from espalier.data.readers.problem import ProblemPolicy


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Plain values only, so that options pass to another process as JSON."""

    text: str = ""  # the text column of a table; without one `text` where there is such a column, else all of them
    id: str = ""  # the column that holds a row's own id: always a tag, whatever its length
    keep_rows: bool = False  # a table row's fields as JSON in column `row`, its text left empty and no other tags
    max_line_bytes: int = 16 << 20  # a longer line is never held in memory
    max_tags: int = 32  # columns of a table that become tags, the first ones
    max_ratio: float = 200.0  # a packed file that gives more than so many times its size is refused
    max_memory_bytes: int = 2 << 30  # of the process that reads a foreign format, over what it starts with
    max_seconds: float = 60.0  # for one file of a foreign format
    sandbox: bool = True  # foreign formats in a process of their own
    engines: tuple[tuple[str, str], ...] = ()  # suffix -> engine of the group `espalier.readers.engines`
    problems: dict[str, str] = field(default_factory=lambda: ProblemPolicy().model_dump())

    def to_json(self) -> dict[str, Any]:
        """All fields; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ReadOptions:
        """Options as `to_json` wrote them."""
        engines = tuple((suffix, engine) for suffix, engine in value.pop("engines"))
        return cls(engines=engines, **value)
