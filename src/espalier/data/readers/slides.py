"""PPTX read straight from its XML (ECMA-376 part 1, PresentationML): a slide is a page; titles, text, lists, tables,
charts, diagrams, speaker's notes and comments, in the order of the file.

Pictures, and slide numbers, dates and footers that a layout repeats, are left out; hidden slides are counted in a tag.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from espalier.core.types import Document
from espalier.data.readers.blocks import Block, Heading, Item, Paragraph, Table, write_blocks
from espalier.data.readers.container import Package, attribute, child, local_name, open_zip
from espalier.data.readers.omml import write_math
from espalier.data.readers.paged import join_pages
from espalier.data.readers.parts import graphic_parts, linked, main_part, read_properties, relations_of, write_comment
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile
from espalier.data.readers.tabletext import flatten, repeatable

MAX_SPAN = 64
_FURNITURE = {"sldNum", "dt", "ftr", "hdr"}
_TITLES = {"title", "ctrTitle"}
_BODIES = {"body", "obj", ""}


@versioned(1)
def read_slides(source: SourceFile) -> Iterator[Document]:
    """One document, a page for each slide that is shown."""
    with open_zip(io.BytesIO(source.read_bytes()), "PPTX") as package:
        part = main_part(package, "ppt/presentation.xml")
        relations = relations_of(package, part)
        authors = _read_authors(package, relations)
        texts, hidden = [], 0
        for each in package.xml(part).iter():
            if local_name(each) != "sldId":
                continue
            target = next((relations[v][1] for k, v in each.attrib.items() if k.endswith("}id") and v in relations), "")
            if target not in package:
                continue
            root = package.xml(target)
            if root.get("show") == "0":
                hidden += 1
                continue
            slide = _Slide(package, relations_of(package, target))
            texts.append(write_blocks([*slide.blocks(root), *slide.notes(), *slide.comments(authors)]))
        tags = read_properties(package)
    if hidden:
        tags["slides.hidden"] = str(hidden)
    yield from join_pages(source, texts, tags)


@dataclass(slots=True)
class _Slide:
    """One slide's shapes."""

    package: Package
    relations: dict[str, tuple[str, str]]

    def blocks(self, root: Any) -> Iterator[Block]:
        for shape in _children(root, "cSld", "spTree"):
            yield from self.shape(shape)

    def shape(self, shape: Any) -> Iterator[Block]:
        name = local_name(shape)
        if name == "grpSp":
            for each in shape:
                yield from self.shape(each)
        elif name == "AlternateContent":
            for each in _children(shape, "Choice"):
                yield from self.shape(each)
        elif name in ("sp", "cxnSp"):
            yield from self.text(shape)
        elif name == "graphicFrame":
            table = next((each for each in shape.iter() if local_name(each) == "tbl"), None)
            if table is not None:
                yield read_table(table)
            yield from graphic_parts(shape, self.relations, self.package)

    def text(self, shape: Any) -> Iterator[Block]:
        holder = child(shape, "nvSpPr", "nvPr", "ph")
        kind = "none" if holder is None else attribute(holder, "type")
        body = child(shape, "txBody")
        if kind in _FURNITURE or body is None:
            return
        if kind in _TITLES:
            text = " ".join(filter(None, (flatten(_paragraph_text(each)) for each in body if local_name(each) == "p")))
            if text:
                yield Heading(text, 1)
            return
        yield from read_paragraphs(body, listed=kind in _BODIES)

    def notes(self) -> Iterator[Block]:
        for part in linked(self.relations, "notesSlide"):
            if part not in self.package:
                continue
            for shape in _children(self.package.xml(part), "cSld", "spTree"):
                holder = child(shape, "nvSpPr", "nvPr", "ph")
                body = child(shape, "txBody")
                if holder is not None and attribute(holder, "type") == "body" and body is not None:
                    text = " ".join(filter(None, (flatten(_paragraph_text(each)) for each in body)))
                    if text:
                        yield Paragraph(f"> Notes: {text}")

    def comments(self, authors: dict[str, str]) -> Iterator[Block]:
        for part in linked(self.relations, "comments"):
            for comment in self.package.xml(part).iter() if part in self.package else ():
                if local_name(comment) not in ("cm", "reply"):
                    continue
                text = _own_text(comment)
                if text:
                    when = attribute(comment, "dt") or attribute(comment, "created")
                    yield write_comment(authors.get(attribute(comment, "authorId"), ""), text, when)


def read_paragraphs(body: Any, *, listed: bool) -> Iterator[Block]:
    """The paragraphs of a text body; `listed`: they are bulleted unless they say they are not."""
    numbers: dict[int, int] = {}
    paragraphs = [each for each in body if local_name(each) == "p"]
    for element in paragraphs:
        text = _paragraph_text(element)
        if not text.strip():
            continue
        properties = child(element, "pPr")
        marks = {local_name(each) for each in properties} if properties is not None else set()
        level = attribute(properties, "lvl") if properties is not None else ""
        depth = min(int(level), 8) if level.isdigit() else 0
        if "buAutoNum" in marks:
            numbers[depth] = numbers.get(depth, 0) + 1
            yield Item(text, depth, numbers[depth])
            continue
        bulleted = "buChar" in marks or "buBlip" in marks or depth > 0
        implied = listed and len(paragraphs) > 1 and "buNone" not in marks
        yield Item(text, depth) if bulleted or implied else Paragraph(text)


def read_table(table: Any) -> Table:
    """A DrawingML table; merged cells repeat their text."""
    rows: list[list[str]] = []
    for row in (each for each in table if local_name(each) == "tr"):
        cells: list[str] = []
        for cell in (each for each in row if local_name(each) == "tc"):
            at = len(cells)
            if attribute(cell, "hMerge") in ("1", "true") and cells:
                cells.append(repeatable(cells[-1]))
            elif attribute(cell, "vMerge") in ("1", "true") and rows and at < len(rows[-1]):
                cells.append(repeatable(rows[-1][at]))
            else:
                body = child(cell, "txBody")
                texts = [flatten(_paragraph_text(each)) for each in body] if body is not None else []
                cells.append(" ".join(filter(None, texts)))
        rows.append(cells)
    properties = child(table, "tblPr")
    header = properties is not None and attribute(properties, "firstRow") in ("1", "true")
    return Table(tuple(map(tuple, rows)), named_rows=not header)


def _paragraph_text(element: Any) -> str:
    parts = []
    for each in element:
        name = local_name(each)
        if name == "br":
            parts.append("\n")
        elif name == "fld" and attribute(each, "type") == "slidenum":
            continue
        elif name in ("r", "fld"):
            parts += [run.text or "" for run in each if local_name(run) == "t"]
        else:
            parts += [f"${write_math(math)}$" for math in each.iter() if local_name(math) == "oMath"]
    return "".join(parts)


def _own_text(comment: Any) -> str:
    """The text of a comment without that of its replies."""
    parts = []
    waiting = [each for each in comment if local_name(each) != "replyLst"]
    for element in waiting:
        parts += [each.text or "" for each in element.iter() if local_name(each) in ("t", "text")]
    return " ".join(" ".join(parts).split())


def _read_authors(package: Package, relations: dict[str, tuple[str, str]]) -> dict[str, str]:
    authors: dict[str, str] = {}
    for kind in ("commentAuthors", "authors"):
        for part in linked(relations, kind):
            for author in package.xml(part) if part in package else ():
                authors[attribute(author, "id")] = attribute(author, "name")
    return authors


def _children(element: Any, *path: str) -> list[Any]:
    found = child(element, *path) if path else element
    return list(found) if found is not None else []
