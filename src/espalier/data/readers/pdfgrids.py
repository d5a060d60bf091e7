"""Tables drawn with rules on a PDF page: grids of crossing lines.

Rules that are missing between two cells make them one; a table may be open at its sides. Several lines of figures in
one ruled row are several rows. Positions are points; nothing is judged by what the words say but whether they are
figures. Does not know tables without rules.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from espalier.data.readers.pdfpage import Page, Word
from espalier.data.readers.pdfrules import Rule

SNAP = 3.0  # points: rules nearer than this are one
MIN_FILLED = 0.35  # share of a table's cells that hold text
MIN_REGULAR = 0.5  # share of a grid's cells that no missing rule joins to others
MAX_GRID = 20_000
MAX_LEVELS = 200


@dataclass(slots=True)
class Grid:
    """A table's cells row by row, and the words that stand in it."""

    rows: list[list[str]]
    words: set[int]  # ids of the Word objects


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


def _is_drawn(rules: Sequence[Rule], through: float) -> bool:
    return any(rule.start - SNAP <= through <= rule.end + SNAP for rule in rules)


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
        filled += _split_figures(cells) or [[join_words([word.text for word in cell]) for cell in cells]]
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
    texts = [[join_words(cell) for cell in row] for row in rows]
    full = all(sum(map(bool, row)) > len(cells) / 2 for row in texts)
    filled = [cell for row in texts for cell in row if cell]
    figures = sum(any(sign.isdigit() for sign in cell) for cell in filled)
    return texts if full and figures > len(filled) / 2 else []


def join_words(parts: Iterable[str]) -> str:
    """Words with a space between them, but where a soft hyphen ends one."""
    return " ".join(parts).replace("\u00ad ", "")
