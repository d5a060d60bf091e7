"""What was wrong with a source, as data: kind, place, what was done about it; and the short report a person acts on.

Does not know how problems are found (the readers do) or where the full list is kept (the engine does).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Spec

Action = Literal["refuse", "skip", "repair"]
Firm = Literal["refuse", "skip"]  # where there is nothing to repair
SHOWN = 3  # places of a kind that the report names


class ProblemPolicy(Spec):
    """What is done about each kind of problem.

    refuse stops the build at the first one; skip leaves the row (or the file) out and reports it; repair reads on and
    reports it.
    """

    unreadable: Firm = Field("skip", description="a file that no reader can read: skip leaves the file out")
    broken_line: Firm = Field("skip", description="a line that is not JSON, a CSV row with an open quote")
    not_object: Firm = Field("skip", description="a JSON value that is no object where a row should be")
    missing_text: Firm = Field("skip", description="a row without text, or without the column `source.text` names")
    long_line: Firm = Field("skip", description="a line of more than `max_line_bytes`; raise that to keep it")
    mixed_schema: Action = Field("repair", description="a column changes its type or appears late: read as text")
    duplicate_id: Action = Field("repair", description="an id seen before: the row's id becomes ID~2")
    bom: Action = Field("repair", description="a byte order mark: taken off; skip leaves the file (or line) out")
    crlf: Action = Field("repair", description="lines that end in CR LF: read as LF; skip leaves the file out")
    encoding: Action = Field("repair", description="a file that is not UTF-8: decoded; skip leaves the file out")
    invalid_utf8: Action = Field("repair", description="bytes in a row that are not UTF-8: read as U+FFFD")
    null_bytes: Action = Field("repair", description="NUL in a row: taken out")
    ragged_row: Action = Field("repair", description="a CSV row with too few cells (the rest empty) or too many (kept)")
    header: Action = Field("repair", description="column names that are empty or repeated: made up; skip: the file")


_ADVICE = {
    "unreadable": "open the file and mend it, or exclude it",
    "broken_line": "mend these lines, or leave them out",
    "not_object": "write one JSON object a line",
    "missing_text": "name the right column in `source.text`, or leave these rows out",
    "long_line": "raise `source.max_line_bytes` if such lines are wanted",
    "mixed_schema": "give the column one type at its source, if text will not do",
    "duplicate_id": "give each row an id of its own, or set `problems: {duplicate_id: skip}` to keep the first",
    "bom": "save the file without a byte order mark",
    "crlf": "nothing to do",
    "encoding": "save the file as UTF-8, if the text looks wrong",
    "invalid_utf8": "export these rows again as UTF-8",
    "null_bytes": "nothing to do, unless the file is binary",
    "ragged_row": "check the delimiter and the quotes of these rows",
    "header": "give each column a different name",
}
_NAMES = {
    "unreadable": "unreadable files",
    "broken_line": "broken lines",
    "not_object": "lines that hold no object",
    "missing_text": "rows without text",
    "long_line": "lines too long",
    "mixed_schema": "values of another type than their column",
    "duplicate_id": "ids another row has",
    "bom": "byte order marks",
    "crlf": "lines that end in CR LF",
    "encoding": "files not in UTF-8",
    "invalid_utf8": "rows with bytes that are not UTF-8",
    "null_bytes": "rows with NUL",
    "ragged_row": "ragged rows",
    "header": "bad headers",
}
_DONE = {"refuse": "refused", "skip": "left out", "repair": "repaired"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `line` is the physical line from 1, 0 for the whole file; `rows` how many rows it stands for."""

    kind: str  # a field of ProblemPolicy
    uri: str
    line: int
    message: str
    action: str  # what was done: "refuse", "skip" or "repair"
    rows: int = 1
    transient: bool = False  # it may be gone the next time, on a machine with less to do: not to be remembered

    @property
    def where(self) -> str:
        return f"{self.uri}:{self.line}" if self.line else self.uri

    def to_json(self) -> dict[str, Any]:
        """One line of problems.jsonl."""
        return {name: getattr(self, name) for name in ("kind", "uri", "line", "message", "action", "rows", "transient")}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Problem:
        """The inverse of `to_json`."""
        return cls(**value)

    def to_error(self) -> InvalidInput:
        """What a build stops with where the policy refuses."""
        advice = f"{_ADVICE[self.kind]}; or set `source.problems: {{{self.kind}: skip}}`"
        return InvalidInput(f"{self.kind.replace('_', ' ')}: {self.message}", where=self.where, hint=advice)


@dataclass(slots=True)
class Tally:
    """Problems counted as they come: by kind and action, with the first places of each."""

    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    first: dict[tuple[str, str], list[Problem]] = field(default_factory=dict)

    def add(self, problem: Problem) -> None:
        key = (problem.kind, problem.action)
        self.rows[key] = self.rows.get(key, 0) + problem.rows
        places = self.first.setdefault(key, [])
        if len(places) < SHOWN:
            places.append(problem)

    @property
    def counts(self) -> dict[str, int]:
        """Rows by "kind: done", as a step's counts."""
        return {f"{kind} {_DONE[action]}": rows for (kind, action), rows in sorted(self.rows.items())}

    def lines(self) -> list[str]:
        """The report: what, how often, where first, and what to do next. Empty where all is well."""
        report = []
        for key in sorted(self.rows, key=lambda key: (key[1] == "repair", -self.rows[key], key)):
            kind, action = key
            report.append(f"{self.rows[key]:>9,} {_NAMES[kind]}, {_DONE[action]}: {_ADVICE[kind]}")
            report += [f"{'':>10}{problem.where}: {problem.message}" for problem in self.first[key]]
        return report
