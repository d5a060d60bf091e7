"""OpenDocument (ODF 1.3) read straight from its XML: ODT as one text, ODS as a page a sheet, ODP as a page a slide.

Headings, lists, tables, notes, text boxes and annotations are kept; deleted text and pictures are left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.blocks import Block, Heading, Item, Paragraph, Table, write_block, write_blocks
from espalier.data.readers.container import attribute, child, local_name, open_zip, parse_xml
from espalier.data.readers.islands import read_islands
from espalier.data.readers.paged import join_pages
from espalier.data.readers.parts import write_comment
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile
from espalier.data.readers.tabletext import flatten

MAX_REPEATED = 1_000
MAX_CELLS = 5_000_000
_CONTENT = "content.xml"
_LISTS_NUMBERED = "list-level-style-number"
_HOLDERS = {
    *("frame", "custom-shape", "g", "text-box", "section", "notes"),
    *("index-body", "table-of-content", "illustration-index", "alphabetical-index", "bibliography"),
}


@versioned(1)
def read_odt(source: SourceFile) -> Iterator[Document]:
    """One document: the text from beginning to end."""
    walk, body, tags = _open(source, "text")
    yield from join_pages(source, [write_blocks(walk.blocks(body))], tags)


@versioned(1)
def read_ods(source: SourceFile) -> Iterator[Document]:
    """One document, a page for each sheet: its name a heading, each island of cells a table."""
    walk, body, tags = _open(source, "spreadsheet")
    texts = []
    for sheet in (each for each in body if local_name(each) == "table"):
        blocks = list(read_islands(walk.cells(sheet)))
        texts.append(write_blocks([Heading(attribute(sheet, "name"), 2), *blocks]) if blocks else "")
    yield from join_pages(source, texts, tags)


@versioned(1)
def read_odp(source: SourceFile) -> Iterator[Document]:
    """One document, a page for each slide."""
    walk, body, tags = _open(source, "presentation")
    slides = (each for each in body if local_name(each) == "page")
    yield from join_pages(source, [write_blocks(walk.blocks(slide)) for slide in slides], tags)


def _open(source: SourceFile, kind: str) -> tuple[_Walk, Any, dict[str, str]]:
    with open_zip(io.BytesIO(source.read_bytes()), "OpenDocument") as package:
        if "META-INF/manifest.xml" in package and b"encryption-data" in package.read("META-INF/manifest.xml"):
            raise InvalidInput("encrypted: it needs a password", hint="save it without a password")
        root = parse_xml(package.read(_CONTENT), "OpenDocument")
        title = _title(package.xml("meta.xml")) if "meta.xml" in package else ""
    body = child(root, "body", kind)
    if body is None:
        raise InvalidInput(f"not a readable OpenDocument: there is no {kind} in it")
    numbered = {
        attribute(style, "name")
        for style in root.iter()
        if local_name(style) == "list-style" and child(style, _LISTS_NUMBERED) is not None
    }
    return _Walk(numbered), body, {"title": title[:200]} if title else {}


def _title(root: Any) -> str:
    return flatten(next((each.text or "" for each in root.iter() if local_name(each) == "title"), ""))


class _Walk:
    """Elements -> blocks; counts notes on the way."""

    def __init__(self, numbered: set[str]) -> None:
        self.numbered = numbered
        self.aside: list[Block] = []  # text boxes, notes and annotations of the paragraph being read
        self.total_cells = 0

    def blocks(self, parent: Any) -> Iterator[Block]:
        for element in parent:
            name = local_name(element)
            if name in ("p", "h"):
                yield from self.paragraph(element, name)
            elif name == "list":
                yield from self.items(element, 0, attribute(element, "style-name") in self.numbered)
            elif name == "table":
                yield Table(tuple(map(tuple, self.cells(element))))
            elif name in _HOLDERS:
                yield from self.blocks(element)
            elif name == "annotation":
                yield _annotation(element)

    def paragraph(self, element: Any, name: str) -> Iterator[Block]:
        outer, self.aside = self.aside, []
        text = self.inline(element)
        aside, self.aside = self.aside, outer
        level = attribute(element, "outline-level")
        if name == "h":
            yield Heading(text, int(level) if level.isdigit() else 1)
        else:
            yield Paragraph(text)
        yield from aside

    def items(self, element: Any, depth: int, numbered: bool) -> Iterator[Block]:
        number = 0
        for item in element:
            if local_name(item) not in ("list-item", "list-header"):
                continue
            number += 1
            first = True
            for each in item:
                if local_name(each) == "list":
                    yield from self.items(each, depth + 1, numbered)
                elif local_name(each) in ("p", "h"):
                    text = self.inline(each)
                    yield Item(text, depth, number if numbered else None) if first else Paragraph(text)
                    first = False

    def cells(self, table: Any) -> list[list[str]]:
        """Cell texts; a cell that spans columns or rows stands once, where it begins."""
        rows: list[list[str]] = []
        for row in (each for each in table.iter() if local_name(each) == "table-row"):
            cells: list[str] = []
            for cell in row:
                if local_name(cell) in ("table-cell", "covered-table-cell"):
                    text = " ".join(filter(None, (flatten(write_block(block)) for block in self.blocks(cell))))
                    room = MAX_REPEATED - len(cells)
                    cells += [text] * min(_count(cell, "number-columns-repeated"), max(room, 0))
            while cells and not cells[-1]:
                cells.pop()
            times = min(_count(row, "number-rows-repeated"), MAX_REPEATED) if cells else 1
            self.total_cells += len(cells) * times
            if self.total_cells > MAX_CELLS:
                raise InvalidInput(f"more than {MAX_CELLS} cells", hint="split the file")
            rows += [cells] * times
        return rows

    def inline(self, element: Any) -> str:
        parts = [element.text or ""]
        for each in element:
            name = local_name(each)
            if name == "s":
                parts.append(" " * min(_count(each, "c"), 100))
            elif name == "tab":
                parts.append("\t")
            elif name == "line-break":
                parts.append("\n")
            elif name == "note":
                parts.append(self.note(each))
            elif name == "annotation":
                self.aside.append(_annotation(each))
            elif name in ("frame", "custom-shape", "text-box"):
                self.aside += self.blocks(each)
            elif name not in ("tracked-changes", "bookmark", "annotation-end"):
                parts.append(self.inline(each))
            parts.append(each.tail or "")
        return "".join(parts)

    def note(self, element: Any) -> str:
        mark, body = child(element, "note-citation"), child(element, "note-body")
        citation = flatten("".join(mark.itertext())) if mark is not None else ""
        text = flatten("".join(body.itertext())) if body is not None else ""
        self.aside.append(Paragraph(f"[^{citation}]: {text}"))
        return f"[^{citation}]"


def _annotation(element: Any) -> Block:
    creator, when = child(element, "creator"), child(element, "date")
    text = " ".join("".join(each.itertext()) for each in element if local_name(each) in ("p", "list"))
    return write_comment("" if creator is None else creator.text or "", text, "" if when is None else when.text or "")


def _count(element: Any, name: str) -> int:
    text = attribute(element, name)
    return max(1, int(text)) if text.isdigit() and len(text) < 8 else 1
