"""What a document is made of between its format and its text: headings, paragraphs, list items, tables, code.

Readers make blocks, `write_blocks` makes Markdown of them: so a heading is `#`, a list `-` or `1.`, a table pipes,
whatever the format was. Characters that mean something in Markdown are not escaped: the text is for models and people
to read, not for a renderer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from espalier.data.readers.tabletext import flatten, is_form, write_form, write_table

INDENT = "    "
MAX_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Heading:
    """`level` from 1."""

    text: str
    level: int = 1


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text that may hold line breaks."""

    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """A list item; `number` is None in a bulleted list, `depth` counts from 0."""

    text: str
    depth: int = 0
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cell texts. `named_rows`: the format says that the first column names the rows and no row is a header."""

    rows: tuple[tuple[str, ...], ...]
    named_rows: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """Lines whose white space means something."""

    text: str
    language: str = ""


Block = Heading | Paragraph | Item | Table | Code


def write_blocks(blocks: Iterable[Block]) -> str:
    """Markdown: an empty line between blocks, none between the items of a list."""
    parts: list[str] = []
    before: Block | None = None
    deepest = 0
    for block in blocks:
        if isinstance(block, Item):  # never two levels deeper than the item before, whatever the format says
            block = Item(block.text, min(block.depth, deepest), block.number)
            deepest = block.depth + 1
        elif isinstance(block, Heading | Table):
            deepest = 0
        text = write_block(block)
        if not text:
            continue
        if before is not None:
            parts.append("\n" if isinstance(before, Item) and isinstance(block, Item) else "\n\n")
        parts.append(text)
        before = block
    return "".join(parts)


def write_block(block: Block) -> str:
    """One block; empty when there is nothing in it."""
    match block:
        case Heading(text, level):
            title = flatten(text)
            return f"{'#' * min(max(level, 1), MAX_LEVEL)} {title}" if title else ""
        case Item(text, depth, number):
            return _write_item(text, depth, number)
        case Table(rows, named_rows):
            return _write_table(rows, named_rows)
        case Code(text, language):
            return _write_code(text, language)
        case Paragraph(text):
            return tidy(text)


def tidy(text: str) -> str:
    """Each line's white space as one space; no empty lines."""
    return "\n".join(line for line in (flatten(line) for line in text.split("\n")) if line)


def _write_item(text: str, depth: int, number: int | None) -> str:
    lines = tidy(text).split("\n")
    if not lines[0]:
        return ""
    mark = "-" if number is None else f"{number}."
    indent = INDENT * min(depth, 8)
    return "\n".join([f"{indent}{mark} {lines[0]}", *[f"{indent}{' ' * len(mark)} {line}" for line in lines[1:]]])


def _write_table(rows: tuple[tuple[str, ...], ...], named_rows: bool) -> str:
    kept = [row for row in rows if any(cell.strip() for cell in row)]
    columns = {index for row in kept for index, cell in enumerate(row) if cell.strip()}
    if len(columns) == 1 and len(kept) < 3:
        return "\n\n".join(tidy("".join(row)) for row in kept)  # a frame around a text, not a table
    return write_form(kept) if is_form(kept, named_rows=named_rows) else write_table(kept)


def _write_code(text: str, language: str) -> str:
    body = text.strip("\n")
    if not body.strip():
        return ""
    longest = max((len(run) for run in re.findall(r"`{3,}", body)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"
