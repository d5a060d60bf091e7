"""How a table stands in a text, whatever format it came from.

A table is Markdown: `| a | b |` rows, the first one the header, a row of dashes under it, so that a person, a model and
a chunker see the same columns. A form (two columns, of which the first names what stands in the second) is written
`name: value` a line instead: Markdown knows no table without a header row, a form has none, and the steps that protect
fields (`boilerplate`, `unwrap`) know a field by its colon, as it stands in PDF, mail and Markdown forms too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_NAME_CHARS = 60
MAX_REPEATED_CHARS = 500


def write_table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: every row as wide as the widest, empty rows and empty outer columns left out."""
    filled = _trim([[flatten(cell) for cell in row] for row in rows])
    if not filled:
        return ""
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in filled]
    rule = "| " + " | ".join(["---"] * len(filled[0])) + " |"
    return "\n".join([head, rule, *body])


def write_form(rows: Iterable[Sequence[str]]) -> str:
    """`name: value` for each row of two cells."""
    return "\n".join(f"{flatten(name).rstrip(':')}: {flatten(value)}" for name, value in rows)


def is_form(rows: Sequence[Sequence[str]], *, named_rows: bool) -> bool:
    """Whether two columns are names and values.

    `named_rows` says that the format itself marks the first column as names and no row as a header (`<tr><th><td>`, a
    Word table without a header row); without that, every name must end in a colon.
    """
    if not rows or any(len(row) != 2 or not row[0].strip() or not row[1].strip() for row in rows):
        return False
    names = [flatten(row[0]) for row in rows]
    if len(set(names)) < len(names) or any(len(name) > MAX_NAME_CHARS for name in names):
        return False
    return named_rows or all(name.endswith(":") for name in names)


def repeatable(text: str) -> str:
    """What a cell that spans several says in the further ones: the same, unless it is long."""
    return text if len(text) <= MAX_REPEATED_CHARS else ""


def flatten(text: str) -> str:
    """One line, words parted by one space."""
    return " ".join(text.split())


def _trim(rows: list[list[str]]) -> list[list[str]]:
    rows = [row for row in rows if any(row)]
    used = [index for row in rows for index, cell in enumerate(row) if cell]
    if not used:
        return []
    first, end = min(used), max(used) + 1
    return [row[first:end] + [""] * (end - max(first, len(row))) for row in rows]
