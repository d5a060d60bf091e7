"""CSV and TSV: a header line, then one document a row; built as `rowbatch` says.

A cell may hold line ends. Where a quote is never closed, its line is reported and reading goes on with the next.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from espalier.core.errors import InvalidInput
from espalier.data.readers.findings import Findings
from espalier.data.readers.lines import LineSource, Watch
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.problem import Problem
from espalier.data.readers.rowbatch import Place, RowBatches
from espalier.data.readers.source import SourceFile, suffix_of
from espalier.data.readers.table import TableReader

DELIMITERS = ",;\t|"
MAX_COLUMNS = 10_000
MAX_RECOVERIES = 100  # of open quotes, each of which may cost a reading of `max_line_bytes`
_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1 << 15

Cells = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Line:
    text: str  # with its line feed
    number: int
    start: int
    end: int


@dataclass(slots=True)
class _Feed:
    """Gives csv one physical line after the other, and remembers those of the row it is in."""

    lines: Iterator[_Line | Problem]
    max_bytes: int
    problems: list[Problem] = field(default_factory=list)
    row: list[_Line] = field(default_factory=list)
    _again: list[_Line] = field(default_factory=list)  # in reverse
    _row_bytes: int = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else self._next_line()
        self.row.append(line)
        self._row_bytes += line.end - line.start
        if self._row_bytes > self.max_bytes and len(self.row) > 1:
            raise csv.Error(f"a row of more than {self.max_bytes} bytes")
        return line.text

    def begin_row(self) -> None:
        self.row.clear()
        self._row_bytes = 0

    def take_back(self) -> None:
        """Give all lines of the row but its first again."""
        self._again += reversed(self.row[1:])

    def _next_line(self) -> _Line:
        for item in self.lines:
            if isinstance(item, _Line):
                return item
            self.problems.append(item)
        raise StopIteration


@dataclass(slots=True)
class _Pile:
    """Rows on their way to a batch."""

    cells: list[Cells] = field(default_factory=list)
    places: list[tuple[int, int, int, int]] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, cells: Cells, number: int, row: Sequence[_Line]) -> None:
        self.cells.append(cells)
        self.places.append((number, row[0].number, row[0].start, row[-1].end))
        self.size_bytes += row[-1].end - row[0].start

    @property
    def full(self) -> bool:
        return self.size_bytes >= _BATCH_BYTES or len(self.cells) >= _BATCH_ROWS

    def flush(self, batches: RowBatches) -> Iterator[pa.RecordBatch | Problem]:
        if self.cells:
            yield from batches.build(self.cells, Place(*np.array(self.places, np.int64).T))
        self.cells, self.places, self.size_bytes = [], [], 0


def read_delimited(
    source: SourceFile, options: ReadOptions, watch: Watch | None = None
) -> Iterator[pa.RecordBatch | Problem]:
    """Batches of rows, and the problems; memory is bounded by a batch and the longest row."""
    findings = Findings(source, options)
    with closing(LineSource(findings, watch)) as lines:
        feed = _Feed(_decode_lines(lines, findings), options.max_line_bytes)
        csv.field_size_limit(max(csv.field_size_limit(), options.max_line_bytes))
        yield from _read_rows(feed, lines, findings)
        yield from feed.problems


def _read_rows(feed: _Feed, lines: LineSource, findings: Findings) -> Iterator[pa.RecordBatch | Problem]:
    batches, pile = RowBatches(findings), _Pile()
    header: list[str] = []
    delimiter, number, recoveries, done = "", 0, 0, False
    rows: Iterator[list[str]] = iter(())
    while not done:
        if not delimiter:
            first = next(feed, "")
            delimiter = "\t" if suffix_of(findings.source.uri) == "tsv" else guess_delimiter(first)
            feed._again += reversed(feed.row)
            rows = csv.reader(feed, delimiter=delimiter, strict=True)
        feed.begin_row()
        try:
            row = next(rows)
        except StopIteration:
            done, row = True, []
        except csv.Error as error:
            number, recoveries = number + bool(header), recoveries + (len(feed.row) > 1)
            done = recoveries > MAX_RECOVERIES
            lost = "; the rest of the file was not read" if done else ""
            feed.problems.append(findings.find("broken_line", feed.row[0].number, f"{error}{lost}"))
            feed.take_back()
            rows = csv.reader(feed, delimiter=delimiter, strict=True)
            row = []
        if feed.problems:
            yield from feed.problems
            feed.problems.clear()
        if not any(row):
            continue
        if not header:
            header, wrong = name_columns(row)
            if wrong:
                problem = findings.find("header", feed.row[0].number, wrong)
                yield problem
                if problem.action != "repair":
                    return
            continue
        number += 1
        if len(row) != len(header):
            message = f"{len(row)} fields under a header of {len(header)}"
            problem = findings.find("ragged_row", feed.row[0].number, message)
            yield problem
            if problem.action != "repair":
                continue
            pile.add(_square(header, row), number, feed.row)
        else:
            pile.add(dict(zip(header, row, strict=True)), number, feed.row)
        if pile.full:
            lines.rows = number
            yield from pile.flush(batches)
    yield from pile.flush(batches)


def guess_delimiter(text: str) -> str:
    """The delimiter seen most often outside quotes in the first line; a comma when none is."""
    header = text.split("\n", 1)[0]
    bare = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=bare.count)


def name_columns(cells: Sequence[str]) -> tuple[list[str], str]:
    """A name of its own for each column, and what was wrong with the header. Raises InvalidInput for too many."""
    if len(cells) > MAX_COLUMNS:
        raise InvalidInput(f"{len(cells)} columns, more than {MAX_COLUMNS}")
    names: list[str] = []
    taken, wrong = set(), []
    for position, cell in enumerate(cells, 1):
        name = cell.strip()
        if not name:
            wrong.append(f"column {position} has no name")
            name = f"column {position}"
        if name in taken:
            wrong.append(f"column {position} is another {name[:60]!r}")
            name = next(made for k in range(2, MAX_COLUMNS + 3) if (made := f"{name} {k}") not in taken)
        taken.add(name)
        names.append(name)
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return names, ", ".join(wrong[:3]) + more


def _square(header: Sequence[str], row: Sequence[str]) -> Cells:
    """The cells of a ragged row by column; what is too much gets columns of its own, so no text is lost."""
    cells = dict(zip(header, row, strict=False))
    for position in range(len(header), min(len(row), MAX_COLUMNS)):
        if row[position]:
            cells[f"column {position + 1}"] = row[position]
    return cells


def _decode_lines(lines: LineSource, findings: Findings) -> Iterator[_Line | Problem]:
    for block in lines.blocks():
        if isinstance(block, Problem):
            yield block
            continue
        places = zip(block.lines, block.numbers.tolist(), block.starts.tolist(), block.ends.tolist(), strict=True)
        for line, number, start, end in places:
            if line.endswith(b"\r"):
                line = line[:-1]
            kind = message = ""
            if b"\x00" in line:
                kind, message, line = "null_bytes", "NUL between the characters", line.replace(b"\x00", b"")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                kind, message = "invalid_utf8", f"{error.reason} at byte {error.start + 1} of the line"
                text = line.decode("utf-8", "replace")
            if kind:
                problem = findings.find(kind, number, message)
                yield problem
                if problem.action != "repair":
                    continue
            yield _Line(text + "\n", number, start, end)


CSV = TableReader(read_delimited, version=2)
