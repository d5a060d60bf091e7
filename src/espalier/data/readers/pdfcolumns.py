"""Tables on a PDF page whose columns only line up, and prose set in columns.

A run of lines that are each broken by wide gaps is a table when the gaps of most lines leave the same free strips from
top to bottom. Prose in columns has such strips too: columns of long texts are no table, and are given back as columns.
Positions are points; nothing is judged by what the words say, but that list marks are no column.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from espalier.data.readers.pdfgrids import SNAP, Grid, join_words
from espalier.data.readers.pdfpage import Line, Word

GAP = 0.9  # a gap of so many line heights may part columns
STRIP = 0.55  # ... and what stays free over all lines must be so wide
MAX_PITCH = 2.6  # line heights from one row to the next
MIN_ROWS = 3
MAX_CROSSING = 0.15  # share of lines that may run across a strip (a title, a spanning header)
PROSE_CHARS = 32  # columns with longer texts on average are prose
_MARK = re.compile(r"[-•*‣◦▪■●–—\uf0b7]|\(?(\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)]|\[\d{1,3}\]|\d{1,2}(\.\d{1,2})*\.?")
_LEADER = re.compile(r"(.*?[^\s.])\s*(?:[.·…_]\s?){5,}\s*(\S{1,8})$")


@dataclass(slots=True)
class Columns:
    """Lines set in columns of prose: each column's lines, from left to right."""

    columns: list[list[Line]]
    words: set[int]


def find_aligned(lines: Sequence[Line]) -> list[Grid | Columns]:
    """The unruled tables, and the blocks of prose in columns, of a page's lines."""
    found: list[Grid | Columns] = []
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and _LEADER.match(lines[end].text):
            end += 1
        if end - start >= MIN_ROWS:
            found.append(_contents(lines[start:end]))
            start = end
            continue
        end = _run_end(lines, start)
        block = _judge(lines[start:end]) if end - start > 1 else None
        if isinstance(block, Grid):
            end = _extend(block, lines, start, end)
        if block is not None:
            found.append(block)
        start = max(end, start + 1)
    return found


def _contents(lines: Sequence[Line]) -> Grid:
    """A table of contents: titles and pages, without the dots between them."""
    matches = [match for line in lines if (match := _LEADER.match(line.text))]
    words = {id(word) for line in lines for word in line.words}
    return Grid([[match[1].strip(), match[2].lstrip(". ")] for match in matches], words)


def _run_end(lines: Sequence[Line], start: int) -> int:
    """Where the run of gapped lines that begins at `start` ends (exclusive)."""
    if not _is_gapped(lines[start]):
        return start
    end = start + 1
    pending = 0
    while end + pending < len(lines):
        before, line = lines[end + pending - 1], lines[end + pending]
        drop = before.middle - line.middle
        near = -0.3 * line.height < drop < MAX_PITCH * max(line.height, before.height)
        if not near:
            break
        if _is_gapped(line):
            end += pending + 1
            pending = 0
        elif pending < 2:
            pending += 1  # a cell's text that runs on
        else:
            break
    return end


def _is_gapped(line: Line) -> bool:
    parts = _segments(line, GAP * line.height)
    return len(parts) > 1 and not (len(parts) == 2 and _MARK.fullmatch(" ".join(word.text for word in parts[0])))


def _segments(line: Line, gap: float) -> list[list[Word]]:
    """The line's words, parted where a gap is wider than `gap`: parts from left to right, words as they are read."""
    order = sorted(range(len(line.words)), key=lambda at: line.words[at].left)
    parts = [[order[0]]]
    right = line.words[order[0]].right
    for at in order[1:]:
        word = line.words[at]
        if word.left - right > gap:
            parts.append([at])
        else:
            parts[-1].append(at)
        right = max(right, word.right)
    return [[line.words[at] for at in sorted(part)] for part in parts]


def _judge(lines: Sequence[Line]) -> Grid | Columns | None:
    """Whether lines make a table, columns of prose, or neither."""
    strips = _free_strips(lines)
    if not strips:
        return None
    rows = [_cells(line, strips) for line in lines]
    columns = len(strips) + 1
    texts = [[join_words([word.text for word in cell]) for cell in row] for row in rows]
    full = sum(sum(map(bool, row)) > 1 for row in texts)
    if full < max(min(MIN_ROWS, len(rows)), 0.5 * len(rows)) or (len(rows) < MIN_ROWS and columns < MIN_ROWS):
        return None
    lengths = [len(text) for row in texts for text in row if text]
    words = {id(word) for line in lines for word in line.words}
    if sum(lengths) / len(lengths) > PROSE_CHARS and columns < 4:
        parts = [[Line(row[column]) for row in rows if row[column]] for column in range(columns)]
        return Columns(parts, words)
    first = [row[0] for row in texts if row[0]]
    if columns == 2 and sum(bool(_MARK.fullmatch(text)) for text in first) > 0.6 * len(first):
        return None
    return Grid(_merge_running(texts), words)


def _extend(grid: Grid, lines: Sequence[Line], start: int, end: int) -> int:
    """Take in the lines under a table that fill one of its columns only, but the first; where the table ends then."""
    table = list(lines[start:end])
    pitch = max(before.middle - after.middle for before, after in itertools.pairwise(table))
    strips = _free_strips(table)
    edges = sorted({round(min(word.left for word in cell)) for line in table for cell in _cells(line, strips) if cell})
    while end < len(lines) and len(strips) + 1 == len(grid.rows[0]):
        line, drop = lines[end], lines[end - 1].middle - lines[end].middle
        cells = _cells(line, strips)
        lone = sum(map(bool, cells)) == 1 and not cells[0]
        if not lone or not 0 < drop < 1.1 * pitch or all(abs(line.left - edge) > SNAP for edge in edges):
            break
        grid.rows.append([join_words([word.text for word in cell]) for cell in cells])
        grid.words |= set(map(id, line.words))
        end += 1
    return end


def _free_strips(lines: Sequence[Line]) -> list[float]:
    """The x in the middle of each strip that (nearly) no line crosses."""
    # Two lines can agree by chance, so they must be further apart.
    least = (STRIP if len(lines) >= MIN_ROWS else 2 * GAP) * sorted(line.height for line in lines)[len(lines) // 2]
    parts = [
        (min(word.left for word in part), max(word.right for word in part))
        for line in lines
        for part in _segments(line, least)
    ]
    allowed = int(MAX_CROSSING * len(lines))
    edges = sorted([(left, 1) for left, _ in parts] + [(right, -1) for _, right in parts])
    strips: list[float] = []
    over, opened = 0, float("inf")
    for at, step in edges:
        if over <= allowed < over + step and at - opened > least:
            strips.append((opened + at) / 2)
        if over + step <= allowed < over:
            opened = at
        over += step
    return strips


def _cells(line: Line, strips: Sequence[float]) -> list[list[Word]]:
    """The line's words by column; words that run across a strip without a gap stay in the column where they begin."""
    cells: list[list[Word]] = [[] for _ in range(len(strips) + 1)]
    for part in _segments(line, 0.8 * STRIP * line.height):
        cells[bisect.bisect_right(strips, min(word.middle[0] for word in part))] += part
    return cells


def _has_words(text: str) -> bool:
    return any(sign.isalpha() for sign in text)


def _merge_running(rows: list[list[str]]) -> list[list[str]]:
    """A row with an empty first cell and fewer cells than the one above continues it."""
    merged: list[list[str]] = []
    for row in rows:
        filled = [index for index, cell in enumerate(row) if cell]
        few = bool(merged) and not row[0] and len(filled) < max(2, len(row) / 2)
        if few and all(_has_words(merged[-1][at]) and _has_words(row[at]) for at in filled):
            for index in filled:
                merged[-1][index] = join_words([merged[-1][index], row[index]])
        else:
            merged.append(list(row))
    return merged
