"""How a table stands in a text, whatever format it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def write_rows(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A line a row: `name: value` for two cells, `a | b | c` for more; empty rows are left out."""
    for row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        if not any(cells):
            continue
        if len(cells) == 2 and all(cells):
            yield f"{cells[0].rstrip(':')}: {cells[1]}"
        else:
            yield " | ".join(cells)
