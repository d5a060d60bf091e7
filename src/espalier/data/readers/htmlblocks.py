"""An HTML element -> blocks: headings, paragraphs, lists, tables, code, in the order of the page.

Scripts, navigation, forms' fields and what is marked hidden are left out; links and emphasis leave their text. Goes by
a stack, never by recursion: a hostile page nests deeper than Python does. Does not know which part is the content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from espalier.data.readers.blocks import Block, Code, Heading, Item, Paragraph, Table, tidy
from espalier.data.readers.tabletext import flatten, repeatable

_SILENT = """
    area aside audio button canvas datalist dialog embed footer head iframe input map nav noscript object script select
    style svg template textarea video
"""
_BLOCKS = """
    address article blockquote body caption center dd details div dl dt fieldset figcaption figure form h1 h2 h3 h4 h5
    h6 header hr html label legend li main menu ol p pre section summary table tbody td tfoot th thead tr ul
"""
SILENT = frozenset(_SILENT.split())
_BLOCK_TAGS = frozenset(_BLOCKS.split())
_INLINE_BLOCKS = {"label"}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = {"ul", "ol", "menu", "dl"}
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
MAX_SPAN = 100
MAX_CELLS = 200_000
# A cell that holds more than this, or more than this around another table or heading, holds a part of the page.
LAYOUT_CELL_CHARS = 1_500
LAYOUT_NESTED_CHARS = 300


def read_blocks(root: Any) -> Iterator[Block]:
    """The blocks of an element (lxml) and everything in it."""
    walk = _Walk()
    waiting: list[tuple[Any, bool]] = [(root, True)]
    while waiting:
        element, entering = waiting.pop()
        if not entering:
            walk.leave(element)
            if element is not root:
                walk.text(element.tail)
            continue
        waiting.append((element, False))
        if walk.enter(element):
            waiting.extend((each, True) for each in reversed(element))
        yield from walk.take()
    walk.flush()
    yield from walk.done


@dataclass(slots=True)
class _List:
    kind: str
    number: int = 1
    open: bool = False  # whether the text to come still belongs to the last item


@dataclass(slots=True)
class _Walk:
    """The blocks finished so far, and the text and lists that are open."""

    done: list[Block] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    lists: list[_List] = field(default_factory=list)
    heading: int = 0
    mark: tuple[int, int | None] | None = None  # depth and number of an item whose text is still to come
    quotes: int = 0

    def take(self) -> list[Block]:
        """The blocks finished since the last call, but for the last: an item may still grow."""
        keep = 1 if self.done and isinstance(self.done[-1], Item) else 0
        out, self.done = self.done[: len(self.done) - keep], self.done[len(self.done) - keep :]
        return out

    def text(self, text: str | None) -> None:
        if text:
            self.inline.append(text.replace("\n", " ").replace("\r", " "))

    def enter(self, element: Any) -> bool:
        """Take in an element's opening; False when its children are not to be visited."""
        tag = element.tag if isinstance(element.tag, str) else ""
        if not tag or tag in SILENT or is_hidden(element):
            return False
        if tag == "br":
            self.inline.append("\n")
        elif tag == "img":
            self.picture(element)
        elif tag == "math":
            self.inline.append(write_formula(element))
            return False
        elif tag == "pre":
            self.flush()
            self.done.append(Code("".join(element.itertext()), _language(element)))
            return False
        elif tag == "table" and not is_layout(element):
            self.flush()
            self.done.append(read_table(element))
            return False
        elif tag in _BLOCK_TAGS and tag not in _INLINE_BLOCKS:
            self.open(element, tag)
        elif tag == "code":
            self.inline.append("`")
        self.text(element.text)
        return True

    def open(self, element: Any, tag: str) -> None:
        self.flush()
        if tag in _HEADINGS:
            self.heading = _HEADINGS[tag]
        elif tag in _LISTS:
            start = element.get("start", "1") if tag == "ol" else "1"
            self.lists.append(_List(tag, int(start) if re.fullmatch(r"\d{1,6}", start) else 1))
        elif tag in ("li", "dt", "dd"):
            self.item(tag)
        elif tag == "blockquote":
            self.quotes += 1

    def item(self, tag: str) -> None:
        if not self.lists:
            self.lists.append(_List("ul"))
        current = self.lists[-1]
        self.mark = (len(self.lists) - 1 + (tag == "dd"), current.number if current.kind == "ol" else None)
        current.number += 1
        current.open = False

    def leave(self, element: Any) -> None:
        tag = element.tag if isinstance(element.tag, str) else ""
        if tag == "code" and self.inline:
            self.close_code()
        if tag not in _BLOCK_TAGS or tag in _INLINE_BLOCKS:
            return
        if tag in ("td", "th") and self.inline:
            self.inline.append(" ")
        self.flush()
        if tag in _HEADINGS:
            self.heading = 0
        elif tag in _LISTS and self.lists:
            self.lists.pop()
            self.mark = None
        elif tag in ("li", "dt", "dd"):
            self.mark = None
            if self.lists:
                self.lists[-1].open = False
        elif tag == "blockquote":
            self.quotes = max(0, self.quotes - 1)

    def close_code(self) -> None:
        at = max((index for index, part in enumerate(self.inline) if part == "`"), default=None)
        if at is None:
            return
        inside = flatten("".join(self.inline[at + 1 :]))
        self.inline[at:] = [f"`{inside}`"] if inside else []

    def picture(self, element: Any) -> None:
        alternative = flatten(element.get("alt") or "")
        if " " in alternative:  # one word is an icon's
            self.inline.append(f" {alternative} ")

    def flush(self) -> None:
        """The text gathered so far becomes a block."""
        text = tidy("".join(self.inline))
        self.inline.clear()
        if not text:
            return
        if self.heading:
            self.done.append(Heading(text, self.heading))
        elif self.mark is not None:
            self.done.append(Item(text, *self.mark))
            self.mark = None
            if self.lists:
                self.lists[-1].open = True
        elif self.lists and self.lists[-1].open and self.done and isinstance(self.done[-1], Item):
            last = self.done[-1]
            self.done[-1] = Item(f"{last.text}\n{text}", last.depth, last.number)
        elif self.quotes:
            self.done.append(Paragraph("\n".join(f"> {line}" for line in text.split("\n"))))
        else:
            self.done.append(Paragraph(text))


def is_hidden(element: Any) -> bool:
    """Whether a page says that an element is not to be shown."""
    if element.get("hidden") is not None and element.get("hidden") != "until-found":
        return True
    return bool(_HIDDEN_STYLE.search(element.get("style") or ""))


def is_layout(table: Any) -> bool:
    """Whether a table only arranges the page: its cells are read as blocks then."""
    if table.get("role") in ("presentation", "none"):
        return True
    rows = list(_rows(table))
    if all(len(row) < 2 for row in rows):
        return True
    if any(cell.tag == "th" for row in rows for cell in row):
        return False
    return any(
        len(flatten("".join(cell.itertext())))
        > (LAYOUT_CELL_CHARS if next(cell.iter("table", "h1", "h2", "form"), None) is None else LAYOUT_NESTED_CHARS)
        for row in rows
        for cell in row
    )


def read_table(table: Any) -> Table:
    """Rows of cell texts; a cell that spans rows or columns is repeated in each."""
    rows: list[list[str]] = []
    owed: dict[int, tuple[int, str]] = {}  # column -> rows it still reaches down, text
    named = True
    total = 0
    for row in _rows(table):
        cells: list[str] = []
        named = named and [cell.tag for cell in row] == ["th", "td"]
        for cell in row:
            _pay(cells, owed)
            text = cell_text(cell)
            down = _span(cell, "rowspan")
            for _ in range(_span(cell, "colspan")):
                if down > 1:
                    owed[len(cells)] = (down - 1, repeatable(text))
                cells.append(text)
                text = repeatable(text)
        _pay(cells, owed)
        rows.append(cells)
        total += len(cells)
        if total > MAX_CELLS:
            break
    return Table(tuple(map(tuple, rows)), named_rows=named)


def cell_text(element: Any) -> str:
    """Everything in an element on one line, a space where a block begins or ends."""
    parts: list[str] = []
    waiting: list[tuple[Any, bool]] = [(element, True)]
    while waiting:
        each, entering = waiting.pop()
        tag = each.tag if isinstance(each.tag, str) else ""
        parted = tag in _BLOCK_TAGS or tag == "br"
        if not entering:
            parts.append(" " if parted else "")
            if each is not element:
                parts.append(each.tail or "")
            continue
        waiting.append((each, False))
        if not tag or tag in SILENT or is_hidden(each):
            continue
        parts += [" " if parted else "", write_formula(each) if tag == "math" else each.text or ""]
        if tag != "math":
            waiting.extend((inner, True) for inner in reversed(each))
    return flatten("".join(parts))


def write_formula(element: Any) -> str:
    """A MathML formula by the TeX it is annotated with, else by its characters."""
    for note in element.iter("annotation"):
        if "tex" in (note.get("encoding") or ""):
            return f"${flatten(note.text or '')}$"
    return flatten("".join(element.itertext()))


def _rows(table: Any) -> Iterator[list[Any]]:
    """The rows of a table itself, not of tables inside it."""
    for each in table:
        if each.tag == "tr":
            yield [cell for cell in each if cell.tag in ("td", "th")]
        elif each.tag in ("tbody", "thead", "tfoot"):
            yield from ([cell for cell in row if cell.tag in ("td", "th")] for row in each if row.tag == "tr")


def _pay(cells: list[str], owed: dict[int, tuple[int, str]]) -> None:
    """Fill in what reaches down from rows above, from the next column on."""
    while len(cells) in owed:
        left, text = owed.pop(len(cells))
        if left > 1:
            owed[len(cells)] = (left - 1, text)
        cells.append(text)


def _span(cell: Any, name: str) -> int:
    text = (cell.get(name) or "1").strip()
    return min(max(int(text), 1), MAX_SPAN) if re.fullmatch(r"\d{1,6}", text) else 1


def _language(element: Any) -> str:
    classes = " ".join(each.get("class") or "" for each in (element, *element.iter("code")))
    match = re.search(r"\b(?:language|lang|highlight-source|brush:)[-: ]?([A-Za-z][\w+#-]{0,20})", classes)
    return match[1].lower() if match else ""
