"""The tables on a sheet: islands of filled cells with empty rows or columns between them.

Found by cutting the sheet at its empty rows, each part at its empty columns, and so on until nothing can be cut. Knows
nothing of the file a sheet comes from.
"""

from __future__ import annotations

from collections.abc import Iterator

from espalier.data.readers.blocks import Block, Paragraph, Table

Cells = list[list[str]]


def read_islands(cells: Cells) -> Iterator[Block]:
    """A table for each island, from the top left on; an island of one cell, or a row of one value, is a paragraph."""
    width = max(map(len, cells), default=0)
    padded = [row if len(row) == width else row + [""] * (width - len(row)) for row in cells]
    waiting = [padded] if width else []
    while waiting:
        part = waiting.pop()
        pieces = _cut_rows(part)
        if len(pieces) == 1:
            pieces = _cut_columns(pieces[0])
        if len(pieces) > 1:
            waiting += reversed(pieces)
        elif pieces:
            yield from _read_island(pieces[0])


def _read_island(cells: Cells) -> Iterator[Block]:
    """Titles over the table (a row whose cells are all the same merged one, or only one is filled) stand before it."""
    start = 0
    while start < len(cells) and len({cell for cell in cells[start] if cell}) == 1 and len(cells[0]) > 1:
        if start + 1 == len(cells) or not _is_title(cells[start]):
            break
        yield Paragraph(next(filter(None, cells[start])))
        start += 1
    rows = cells[start:]
    values = {cell for row in rows for cell in row if cell}
    if len(rows) == 1 and len(values) == 1:
        yield Paragraph(values.pop())
    else:
        yield Table(tuple(map(tuple, rows)))


def _is_title(row: list[str]) -> bool:
    return bool(row[0]) and (all(cell == row[0] for cell in row) or not any(row[1:]))


def _cut_rows(cells: Cells) -> list[Cells]:
    pieces: list[Cells] = []
    open_ = False
    for row in cells:
        if any(row):
            if not open_:
                pieces.append([])
            pieces[-1].append(row)
        open_ = any(row)
    return pieces


def _cut_columns(cells: Cells) -> list[Cells]:
    used = [any(row[at] for row in cells) for at in range(len(cells[0]))]
    starts = [at for at, filled in enumerate(used) if filled and (not at or not used[at - 1])]
    ends = [at + 1 for at, filled in enumerate(used) if filled and (at + 1 == len(used) or not used[at + 1])]
    return [[row[start:end] for row in cells] for start, end in zip(starts, ends, strict=True)]
