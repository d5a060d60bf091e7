"""The text of a PDF page: lines in the order they are read, headings, tables, gaps between paragraphs.

The order is the one in which the page was written, which is mostly that of reading; where it jumps about, the page is
cut along its widest free strips instead (XY-cut: Nagy and Seth, 1984). Lines stay lines: joining them is a cleaning
step's. Knows words and boxes, not pdfium.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from espalier.data.readers.blocks import Heading, write_block
from espalier.data.readers.pdfcolumns import Columns, find_aligned
from espalier.data.readers.pdfgrids import Grid, find_grids
from espalier.data.readers.pdfheadings import Headings
from espalier.data.readers.pdfpage import Line, Page
from espalier.data.readers.tabletext import write_table

PARAGRAPH_GAP = 1.4  # times the usual distance of lines
JUMPS = 0.25  # share of lines that may stand above the one before until the order is not believed
MIN_LINES_TO_REORDER = 8
MAX_LINES_TO_REORDER = 2_000
_SOFT_HYPHEN = "\u00ad"


def write_page(page: Page, headings: Headings) -> str:
    """A page as Markdown lines; `headings` tells which lines are some."""
    grids: list[Grid | Columns] = list(find_grids(page))
    ruled = {word for grid in grids for word in grid.words}
    lines = _without(page.lines, ruled)
    aligned = find_aligned(lines)
    if not aligned and is_scattered(lines):
        lines = order_by_cuts(lines)
        aligned = find_aligned(lines)
    parts = [*grids, *aligned]
    owner = {word: index for index, part in enumerate(parts) for word in part.words}
    rows = (
        lines if len(lines) == len(page.lines) else page.lines if not ruled else _merge_order(page.lines, lines, ruled)
    )
    return _assemble(rows, parts, owner, headings)


def is_scattered(lines: Sequence[Line]) -> bool:
    """Whether the lines jump up and down the page more than columns explain."""
    if not MIN_LINES_TO_REORDER <= len(lines) <= MAX_LINES_TO_REORDER:
        return False
    jumps = sum(after.bottom > before.top for before, after in itertools.pairwise(lines))
    return jumps > JUMPS * len(lines)


def order_by_cuts(lines: Sequence[Line]) -> list[Line]:
    """Lines from top to bottom and left to right, column by column: the page cut at free strips again and again."""
    waiting = [list(lines)]
    ordered: list[Line] = []
    while waiting:
        block = waiting.pop()
        parts = _cut(block)
        if len(parts) == 1:
            ordered += sorted(block, key=lambda line: (-round(line.middle), line.left))
        else:
            waiting += reversed(parts)
    return ordered


def _cut(lines: list[Line]) -> list[list[Line]]:
    """The lines in two or more groups, first above then below, or first left then right; one group when uncut."""
    if len(lines) < 2:
        return [lines]
    height = sorted(line.height for line in lines)[len(lines) // 2]
    columns = _groups(lines, 1.5 * height, horizontal=True)
    if len(columns) > 1 and min(map(len, columns)) > 2:
        return columns
    rows = _groups(lines, 0.8 * height, horizontal=False)
    return rows if len(rows) > 1 else columns


def _groups(lines: list[Line], gap: float, *, horizontal: bool) -> list[list[Line]]:
    extents = [(line.left, line.right, line) if horizontal else (-line.top, -line.bottom, line) for line in lines]
    extents.sort(key=lambda each: each[:2])
    groups: list[list[Line]] = []
    reach = float("-inf")
    for start, end, line in extents:
        if start - reach > gap:
            groups.append([])
        groups[-1].append(line)
        reach = max(reach, end)
    return groups


def _without(lines: Sequence[Line], words: set[int]) -> list[Line]:
    kept = ([word for word in line.words if id(word) not in words] for line in lines)
    return [Line(each) for each in kept if each]


def _merge_order(all_lines: Sequence[Line], lines: list[Line], ruled: set[int]) -> list[Line]:
    """The free lines in their order, and the lines of ruled tables where they stood among them."""
    place = {id(line.words[0]): index for index, line in enumerate(lines)}
    merged: list[tuple[float, Line]] = []
    last = -1.0
    for line in all_lines:
        inside = [word for word in line.words if id(word) in ruled]
        outside = [word for word in line.words if id(word) not in ruled]
        if outside:
            last = float(place.get(id(outside[0]), last))
            merged.append((last, Line(outside)))
        if inside:
            merged.append((last + 0.5, Line(inside)))
    return [line for _, line in sorted(merged, key=lambda each: each[0])]


def _assemble(
    lines: Sequence[Line], parts: Sequence[Grid | Columns], owner: Mapping[int, int], headings: Headings
) -> str:
    written: set[int] = set()
    blocks: list[str] = []
    plain: list[Line] = []
    for line in lines:
        index = owner.get(id(line.words[0]))
        if index is None:
            plain.append(line)
        elif index not in written:
            written.add(index)
            blocks += [_write_lines(plain, headings), _write_part(parts[index], headings)]
            plain = []
    blocks.append(_write_lines(plain, headings))
    return "\n\n".join(filter(None, blocks))


def _write_part(part: Grid | Columns, headings: Headings) -> str:
    if isinstance(part, Grid):
        return write_table(part.rows)
    return "\n\n".join(_write_lines(column, headings) for column in part.columns)


def _write_lines(lines: Sequence[Line], headings: Headings) -> str:
    pitch = _pitch(lines)
    out: list[str] = []
    before: Line | None = None
    title: tuple[int, list[str]] | None = None
    for line in lines:
        apart = before is None or _is_apart(before, line, PARAGRAPH_GAP * pitch)
        level = headings.level_of(line, apart=apart or title is not None)
        if title and (level != title[0] or _is_apart(before, line, 2.2 * line.height)):
            out += ["", _write_heading(title), ""]
            title = None
        if level:
            title = (level, [*(title[1] if title else []), line.text])
        else:
            if apart and before is not None:
                out.append("")
            out.append(line.text)
        before = line
    if title:
        out += ["", _write_heading(title)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_join_hyphens(out))).strip("\n")


def _write_heading(title: tuple[int, list[str]]) -> str:
    return write_block(Heading(" ".join(title[1]).replace(f"{_SOFT_HYPHEN} ", ""), title[0]))


def _pitch(lines: Sequence[Line]) -> float:
    """The usual distance from one line to the next."""
    steps = sorted(
        before.middle - after.middle
        for before, after in itertools.pairwise(lines)
        if 0.3 * after.height < before.middle - after.middle < 4 * after.height
    )
    return steps[len(steps) // 3] if steps else 0.0


def _is_apart(before: Line | None, line: Line, distance: float) -> bool:
    return before is not None and distance > 0 and before.middle - line.middle > max(distance, line.height)


def _join_hyphens(lines: Sequence[str]) -> Iterator[str]:
    """A word that a soft hyphen parts at a line's end goes whole onto that line."""
    head = ""
    for index, line in enumerate(lines):
        text = head + line
        head = ""
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if text.endswith(_SOFT_HYPHEN) and following[:1].isalpha():
            head = text.removesuffix(_SOFT_HYPHEN)
            rest = head.rfind(" ") + 1
            if rest:
                yield head[: rest - 1]
                head = head[rest:]
            continue
        yield text
    if head:
        yield head
