"""Tables on a PDF page: those drawn with rules, and those whose columns only line up.

A ruled table is a grid of crossing rules; rules that are missing between two cells make them one. An unruled one is a
run of lines that are each broken by wide gaps, where the gaps of most lines leave the same free strips from top to
bottom. Prose in columns has such strips too: columns of long texts are no table, and are given back as columns.
Positions are points; nothing is judged by what the words say, but that list marks are no column.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from espalier.data.readers.pdfpage import Line, Page, Rule, Word

SNAP = 3.0  # points: rules nearer than this are one
GAP = 0.9  # a gap of so many line heights may part columns
STRIP = 0.55  # ... and what stays free over all lines must be so wide
MAX_PITCH = 2.6  # line heights from one row to the next
MIN_ROWS = 3
MAX_CROSSING = 0.15  # share of lines that may run across a strip (a title, a spanning header)
PROSE_CHARS = 32  # columns with longer texts on average are prose
MIN_FILLED = 0.35
MIN_REGULAR = 0.5  # share of a grid's cells that no missing rule joins to others
MAX_GRID = 20_000
MAX_LEVELS = 200
_MARK = re.compile(r"[-•*‣◦▪■●–—\uf0b7]|\(?(\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)]|\[\d{1,3}\]|\d{1,2}(\.\d{1,2})*\.?")

_LEADER = re.compile(r"(.*?[^\s.])\s*(?:[.·…_]\s?){5,}\s*(\S{1,8})$")


@dataclass(slots=True)
class Grid:
    """A table's cells row by row, and the words that stand in it."""

    rows: list[list[str]]
    words: set[int]  # ids of the Word objects


@dataclass(slots=True)
class Columns:
    """Lines set in columns of prose: each column's lines, from left to right."""

    columns: list[list[Line]]
    words: set[int]


def find_grids(page: Page) -> list[Grid]:
    """The ruled tables of a page."""
    words = [word for line in page.lines for word in line.words]
    grids = []
    for rules in _connect(page.rules):
        across = [rule for rule in rules if rule.horizontal]
        down = [rule for rule in rules if not rule.horizontal]
        if not across or not down:
            continue
        # A table may be open at its sides: there its rules end.
        ys = _snap([rule.at for rule in across] + [min(r.start for r in down), max(r.end for r in down)])
        xs = _snap([rule.at for rule in down] + [min(r.start for r in across), max(r.end for r in across)])
        if len(xs) < 3 or len(ys) < 3 or len(xs) * len(ys) > MAX_GRID:
            continue
        inside = [word for word in words if xs[0] < word.middle[0] < xs[-1] and ys[0] < word.middle[1] < ys[-1]]
        regions = _regions(rules, xs, ys)
        if len({region for row in regions for region in row}) < MIN_REGULAR * (len(xs) - 1) * (len(ys) - 1):
            continue  # boxes of a drawing
        rows = _fill(inside, regions, xs, ys)
        filled = sum(bool(cell) for row in rows for cell in row)
        wide = sum(sum(map(bool, row)) > 1 for row in rows)
        if wide > 1 and filled >= MIN_FILLED * len(rows) * len(rows[0]) and not _is_frame(rows):
            grids.append(Grid(rows, set(map(id, inside))))
    return grids


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
        block = _judge(lines[start:end]) if end - start >= MIN_ROWS else None
        if block is not None:
            found.append(block)
        start = max(end, start + 1)
    return found


def _contents(lines: Sequence[Line]) -> Grid:
    """A table of contents: titles and pages, without the dots between them."""
    matches = [match for line in lines if (match := _LEADER.match(line.text))]
    words = {id(word) for line in lines for word in line.words}
    return Grid([[match[1].strip(), match[2].lstrip(". ")] for match in matches], words)


def _connect(rules: Sequence[Rule]) -> list[list[Rule]]:
    """Rules that cross or touch belong together."""
    parent = list(range(len(rules)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    across = [(index, rule) for index, rule in enumerate(rules) if rule.horizontal]
    down = sorted(
        ((index, rule) for index, rule in enumerate(rules) if not rule.horizontal), key=lambda each: each[1].at
    )
    for index, rule in across:
        for other, upright in down:
            if upright.at > rule.end + SNAP:
                break
            if upright.at >= rule.start - SNAP and upright.start - SNAP <= rule.at <= upright.end + SNAP:
                parent[root(other)] = root(index)
    groups: dict[int, list[Rule]] = {}
    for index, rule in enumerate(rules):
        groups.setdefault(root(index), []).append(rule)
    return [group for group in groups.values() if len(group) >= 4]


def _snap(places: Iterable[float]) -> list[float]:
    """Sorted places, those nearer than SNAP as one."""
    snapped: list[float] = []
    for place in sorted(places):
        if not snapped or place - snapped[-1] > SNAP:
            snapped.append(place)
    return snapped


def _is_frame(rows: Sequence[Sequence[str]]) -> bool:
    """Whether one cell holds most of the text: a page in a box, not a table."""
    texts = {cell for row in rows for cell in row}
    return len(rows) < 5 and len(max(texts, key=len)) > max(300, 0.6 * sum(map(len, texts)))


def _regions(rules: Sequence[Rule], xs: list[float], ys: list[float]) -> list[list[int]]:
    """For each cell of the grid, the lowest row first, the number of the cell it is joined to for want of a rule."""
    width, height = len(xs) - 1, len(ys) - 1
    parent = list(range(width * height))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    upright = [[rule for rule in rules if not rule.horizontal and abs(rule.at - x) <= SNAP] for x in xs]
    level = [[rule for rule in rules if rule.horizontal and abs(rule.at - y) <= SNAP] for y in ys]
    for row in range(height):
        y = (ys[row] + ys[row + 1]) / 2
        for column in range(width):
            x = (xs[column] + xs[column + 1]) / 2
            if column + 1 < width and not _is_drawn(upright[column + 1], y):
                parent[root(row * width + column + 1)] = root(row * width + column)
            if row + 1 < height and not _is_drawn(level[row + 1], x):
                parent[root((row + 1) * width + column)] = root(row * width + column)
    return [[root(row * width + column) for column in range(width)] for row in range(height)]


def _fill(words: Sequence[Word], regions: list[list[int]], xs: list[float], ys: list[float]) -> list[list[str]]:
    """Cell texts, the top row first; a row or column that is joined to its neighbour throughout is left out."""
    inside: dict[int, list[Word]] = {}
    for word in words:
        x, y = word.middle
        region = regions[bisect.bisect_right(ys, y) - 1][bisect.bisect_right(xs, x) - 1]
        inside.setdefault(region, []).append(word)
    rows: list[list[int]] = []
    for row_regions in reversed(regions):
        if not rows or any(here != above and here in inside for here, above in zip(row_regions, rows[-1], strict=True)):
            rows.append(row_regions)  # any other row says only what the one above does
    columns = [at for at in range(len(xs) - 1) if not at or any(row[at] != row[at - 1] for row in regions)]
    filled: list[list[str]] = []
    for row in rows:
        cells = [inside.get(row[at], []) for at in columns]
        filled += _split_figures(cells) or [[_join([word.text for word in cell]) for cell in cells]]
    used = [at for at in range(len(columns)) if any(row[at] for row in filled)]
    return [[row[at] for at in used] for row in filled if any(row)]


def _split_figures(cells: Sequence[Sequence[Word]]) -> list[list[str]]:
    """A ruled row that holds several lines of figures is several rows; empty when it is not.

    Most cells of each line must be filled and most of those hold digits: words that run on in a cell are one row.
    """
    words = sorted((word for cell in cells for word in cell), key=lambda word: -word.middle[1])
    levels: list[float] = []
    for word in words:
        if not levels or levels[-1] - word.middle[1] > 0.6 * word.height:
            levels.append(word.middle[1])
    if not 1 < len(levels) <= MAX_LEVELS:
        return []
    rows: list[list[list[str]]] = [[[] for _ in cells] for _ in levels]
    for column, cell in enumerate(cells):
        for word in cell:
            nearest = min(range(len(levels)), key=lambda at: abs(levels[at] - word.middle[1]))
            rows[nearest][column].append(word.text)
    texts = [[_join(cell) for cell in row] for row in rows]
    full = all(sum(map(bool, row)) > len(cells) / 2 for row in texts)
    filled = [cell for row in texts for cell in row if cell]
    figures = sum(any(sign.isdigit() for sign in cell) for cell in filled)
    return texts if full and figures > len(filled) / 2 else []


def _is_drawn(rules: Sequence[Rule], through: float) -> bool:
    return any(rule.start - SNAP <= through <= rule.end + SNAP for rule in rules)


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
    texts = [[_join([word.text for word in cell]) for cell in row] for row in rows]
    full = sum(sum(map(bool, row)) > 1 for row in texts)
    if full < max(MIN_ROWS, 0.5 * len(rows)):
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


def _free_strips(lines: Sequence[Line]) -> list[float]:
    """The x in the middle of each strip that (nearly) no line crosses."""
    least = STRIP * sorted(line.height for line in lines)[len(lines) // 2]
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


def _merge_running(rows: list[list[str]]) -> list[list[str]]:
    """A row with an empty first cell and fewer cells than the one above continues it."""
    merged: list[list[str]] = []
    for row in rows:
        filled = [index for index, cell in enumerate(row) if cell]
        runs_on = merged and not row[0] and len(filled) < max(2, len(row) / 2) and all(merged[-1][at] for at in filled)
        if runs_on:
            for index in filled:
                merged[-1][index] = _join([merged[-1][index], row[index]])
        else:
            merged.append(list(row))
    return merged


def _join(parts: Iterable[str]) -> str:
    """Words with a space between them, but where a soft hyphen ends one."""
    return " ".join(parts).replace("\u00ad ", "")
