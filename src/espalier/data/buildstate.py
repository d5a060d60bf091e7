"""`Build`: a dataset version while it is being made. Knows what is gathered on the way, and does nothing with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from espalier.data.flow.intake import ReadSource
from espalier.data.flow.record import read_note
from espalier.data.harvest import Harvest
from espalier.data.manifest import StepReport
from espalier.data.readers.problem import Problem
from espalier.data.readers.problem import Tally as Problems
from espalier.data.readers.source import SkippedFile, SourceFile
from espalier.data.spec import DataSpec
from espalier.data.split import Drawn


@dataclass(slots=True)
class Build:
    """Files are named where their number may grow with the corpus: what is in them is read when it is wanted."""

    spec: DataSpec
    sources: list[SourceFile]
    skipped: list[SkippedFile]
    read: list[ReadSource] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)  # of reading, counted
    found_later: list[str] = field(default_factory=list)  # outcomes of steps that found problems
    reports: list[StepReport] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)  # files of what steps left out
    harvests: list[Harvest] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    label_count: int = 0
    licences: dict[str, dict[str, str]] = field(default_factory=dict)

    def list_problems(self) -> Iterator[Problem]:
        """What was wrong with the sources: what reading found, source by source, then what steps did."""
        for found in self.read:
            yield from found.problems()
        yield from self.list_later_problems()

    def list_later_problems(self) -> Iterator[Problem]:
        """What only steps could find, which see more than one source."""
        for path in self.found_later:
            yield from map(Problem.from_json, (read_note(Path(path)) or {}).get("problems", ()))
