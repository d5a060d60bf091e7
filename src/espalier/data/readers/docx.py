"""DOCX read straight from its XML (ECMA-376 part 1): headings, paragraphs, lists, tables, text boxes, formulas, charts,
footnotes and comments, in order.

Headers and footers repeat on every page: they become tags, not text. Deleted text and pictures are left out. Does not
know where pages end: Word decides that when it prints.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from espalier.core.types import Document
from espalier.data.readers.blocks import Block, Code, Heading, Item, Paragraph, Table, write_block, write_blocks
from espalier.data.readers.container import Package, attribute, child, local_name, open_zip
from espalier.data.readers.omml import write_math
from espalier.data.readers.parts import graphic_parts, linked, main_part, read_properties, relations_of, write_comment
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile
from espalier.data.readers.tabletext import flatten, repeatable
from espalier.data.readers.wordstyles import Numbering, Styles, read_numbering, read_styles

MAX_SPAN = 64
MAX_TAG_CHARS = 200
_MAIN = "word/document.xml"
_BREAKS = {"br": "\n", "cr": "\n", "tab": "\t", "noBreakHyphen": "-"}
_WRAPPERS = {"sdt", "sdtContent", "ins", "smartTag", "customXml", "moveTo", "AlternateContent", "Choice"}
# `Fallback` repeats what `Choice` holds, for older readers.
_SKIPPED = {"del", "moveFrom", "Fallback", "pPr", "rPr", "tblPr", "sdtPr", "sdtEndPr", "instrText"}


@versioned(2)
def read_docx(source: SourceFile) -> Iterator[Document]:
    """One document; of a form, `name: value` lines, of another table a Markdown table."""
    with open_zip(io.BytesIO(source.read_bytes()), "DOCX") as package:
        text, tags = _read_package(package)
    if text.strip():
        yield Document(source.document_id(1), text, source.span(end=len(text)), tags)


def _read_package(package: Package) -> tuple[str, dict[str, str]]:
    part = main_part(package, _MAIN)
    root = package.xml(part)
    relations = relations_of(package, part)
    walk = _Walk(package, relations)
    for target in linked(relations, "styles")[:1]:
        walk.styles = read_styles(package.xml(target)) if target in package else walk.styles
    for target in linked(relations, "numbering")[:1]:
        walk.numbering = read_numbering(package.xml(target)) if target in package else walk.numbering
    body = next((element for element in root if local_name(element) == "body"), None)
    blocks = list(walk.blocks(body)) if body is not None else []
    blocks += walk.notes("footnotes", "footnote", "")
    blocks += walk.notes("endnotes", "endnote", "e")
    blocks += walk.comments()
    tags = read_properties(package)
    for kind in ("header", "footer"):
        if edge := walk.edge(kind):
            tags[f"docx.{kind}"] = edge
    return write_blocks(_merge_code(blocks)), tags


@dataclass(slots=True)
class _Walk:
    """Goes through a document's elements in order, counting list items on the way."""

    package: Package
    relations: dict[str, tuple[str, str]]
    styles: Styles = field(default_factory=Styles)
    numbering: Numbering = field(default_factory=Numbering)
    aside: list[Block] = field(default_factory=list)  # text boxes and charts of the paragraph being read

    def blocks(self, parent: Any) -> Iterator[Block]:
        for element in parent:
            name = local_name(element)
            if name == "p":
                yield from self.paragraph(element)
            elif name == "tbl":
                yield self.table(element)
            elif name in _WRAPPERS:
                yield from self.blocks(element)
            elif name in ("oMathPara", "oMath"):
                yield from (Paragraph(text) for text in _display(element))

    def paragraph(self, element: Any) -> Iterator[Block]:
        outer, self.aside = self.aside, []
        text = "".join(self.inline(element))
        aside, self.aside = self.aside, outer
        if _is_formula(element):
            yield from (Paragraph(line) for line in _display(element))
        elif text.strip():
            yield self.block_of(element, text)
        yield from aside

    def block_of(self, element: Any, text: str) -> Block:
        style = _value(child(element, "pPr", "pStyle"))
        outline = _value(child(element, "pPr", "outlineLvl"))
        level = int(outline) + 1 if outline.isdigit() and int(outline) < 9 else self.styles.heading_level(style)
        numbering = self.number_of(element, style)
        if level is not None and len(text) <= 300:
            label = self.count(*numbering)[0] if numbering else ""
            return Heading(f"{label} {text}" if label else text, level)
        if numbering is not None:
            label, number = self.count(*numbering)
            if number is not None and not label.isalnum():  # 1.1 or (a): more than Markdown can count
                return Item(f"{label} {text}", numbering[1])
            return Item(text, numbering[1], number)
        return Code(text) if self.styles.is_code(style) else Paragraph(text)

    def number_of(self, element: Any, style: str) -> tuple[str, int] | None:
        given = child(element, "pPr", "numPr")
        from_style = self.styles.numbering(style)
        num_id, level = _value(child(given, "numId")), _value(child(given, "ilvl"))
        if not num_id and from_style:
            num_id = from_style[0]
        depth = int(level) if level.isdigit() else (from_style[1] if from_style and not given else 0)
        return (num_id, min(depth, 8)) if num_id and num_id != "0" else None

    def count(self, num_id: str, depth: int) -> tuple[str, int | None]:
        """The label that Word prints, and the number of a numbered item."""
        counts = self.numbering.count(num_id, depth)
        level = self.numbering.level(num_id, depth)
        plain = level is None or level.kind in ("bullet", "none")
        return self.numbering.label(num_id, depth, counts), None if plain else counts[depth]

    def inline(self, parent: Any) -> Iterator[str]:
        for element in parent:
            name = local_name(element)
            if name == "t":
                yield element.text or ""
            elif name in _BREAKS:
                yield _BREAKS[name]
            elif name == "oMath":
                yield f"${write_math(element)}$"
            elif name in ("footnoteReference", "endnoteReference"):
                yield f"[^{'e' if name[0] == 'e' else ''}{attribute(element, 'id')}]"
            elif name == "txbxContent":
                self.aside += self.blocks(element)
            elif name == "graphicData":
                self.aside += graphic_parts(element, self.relations, self.package)
                yield from self.inline(element)
            elif name not in _SKIPPED:
                yield from self.inline(element)

    def table(self, element: Any) -> Table:
        rows: list[list[str]] = []
        for row in _find(element, "tr"):
            cells = [""] * _small(_value(child(row, "trPr", "gridBefore")), 0)
            for cell in _find(row, "tc"):
                merged = child(cell, "tcPr", "vMerge")
                continued = merged is not None and attribute(merged, "val") != "restart"
                above = rows[-1][len(cells)] if continued and rows and len(cells) < len(rows[-1]) else ""
                text = repeatable(above) if continued else " ".join(map(plain_text, self.blocks(cell)))
                cells += [text] + [repeatable(text)] * (_small(_value(child(cell, "tcPr", "gridSpan")), 1) - 1)
            rows.append(cells)
        return Table(tuple(map(tuple, rows)), named_rows=not _has_header(element))

    def notes(self, kind: str, name: str, prefix: str) -> Iterator[Block]:
        for root in self.linked_roots(kind):
            for note in root:
                if local_name(note) == name and attribute(note, "type") in ("", "normal"):
                    text = " ".join(map(plain_text, self.blocks(note)))
                    if text:
                        yield Paragraph(f"[^{prefix}{attribute(note, 'id')}]: {text}")

    def comments(self) -> Iterator[Block]:
        for root in self.linked_roots("comments"):
            for comment in root:
                text = " ".join(map(plain_text, self.blocks(comment)))
                if text:
                    yield write_comment(attribute(comment, "author"), text, attribute(comment, "date"))

    def edge(self, kind: str) -> str:
        """The distinct texts of headers or footers, as one line."""
        texts = [" ".join(map(plain_text, self.blocks(root))) for root in self.linked_roots(kind)]
        return flatten(" | ".join(dict.fromkeys(filter(None, texts))))[:MAX_TAG_CHARS]

    def linked_roots(self, kind: str) -> list[Any]:
        return [self.package.xml(target) for target in linked(self.relations, kind) if target in self.package]


def plain_text(block: Block) -> str:
    """A block inside a cell or a note: one line."""
    if isinstance(block, Table):
        return " ".join(flatten(cell) for row in block.rows for cell in row if cell.strip())
    return flatten(block.text) if isinstance(block, Heading | Paragraph | Code) else flatten(write_block(block))


def _merge_code(blocks: list[Block]) -> Iterator[Block]:
    """Lines of code are paragraphs of their own in Word; here they are one block."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Code):
            lines.append(block.text)
            continue
        if lines:
            yield Code("\n".join(lines))
            lines = []
        yield block
    if lines:
        yield Code("\n".join(lines))


def _display(element: Any) -> list[str]:
    formulas = [element] if local_name(element) == "oMath" else _formulas(element)
    return [f"$${text}$$" for text in map(write_math, formulas) if text.strip()]


def _formulas(element: Any) -> list[Any]:
    return [each for each in element.iter() if local_name(each) == "oMath"]


def _is_formula(element: Any) -> bool:
    """Whether a paragraph holds formulas and no other text."""
    if not _formulas(element):
        return False
    words = {each for each in element.iter() if local_name(each) == "t" and (each.text or "").strip()}
    return words <= {each for formula in _formulas(element) for each in formula.iter()}


def _find(parent: Any, name: str) -> Iterator[Any]:
    for element in parent:
        if local_name(element) == name:
            yield element
        elif local_name(element) in _WRAPPERS:
            yield from _find(element, name)


def _has_header(table: Any) -> bool:
    """A row repeated on each page, or a table look that sets the first row apart."""
    if any(child(row, "trPr", "tblHeader") is not None for row in _find(table, "tr")):
        return True
    look = child(table, "tblPr", "tblLook")
    if look is None:
        return False
    first = attribute(look, "firstRow")
    bits = attribute(look, "val")
    return first in ("1", "true", "on") if first else bool(int(bits, 16) & 0x20) if _is_hex(bits) else False


def _is_hex(text: str) -> bool:
    return 0 < len(text) <= 8 and all(sign in "0123456789abcdefABCDEF" for sign in text)


def _small(text: str, default: int) -> int:
    return min(int(text), MAX_SPAN) if text.isdigit() else default


def _value(element: Any) -> str:
    return "" if element is None else attribute(element, "val")
