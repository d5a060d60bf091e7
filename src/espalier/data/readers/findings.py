"""Makes problems of one source by the policy, and text of it that no encoding or table can hold. Knows no format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from espalier.data.readers.options import ReadOptions
from espalier.data.readers.problem import Problem
from espalier.data.readers.source import SourceFile


@dataclass(frozen=True, slots=True)
class Findings:
    """One source and what is done about its problems."""

    source: SourceFile
    options: ReadOptions

    def find(self, kind: str, line: int, message: str, rows: int = 1) -> Problem:
        """A problem, with the action that the policy asks for."""
        return Problem(kind, self.source.uri, line, message, self.action(kind), rows)

    def action(self, kind: str) -> str:
        """What the policy says about a kind."""
        return self.options.problems[kind]


def heal(text: str) -> str:
    """The text without NUL, and with U+FFFD for halves of surrogate pairs, which UTF-8 cannot hold."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\x00", "")


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every string in it, keys too, put through `change`."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [each_text(item, change) for item in value]
    if isinstance(value, dict):
        return {change(name): each_text(item, change) for name, item in value.items()}
    return value
