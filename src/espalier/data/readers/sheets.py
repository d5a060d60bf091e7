"""Spreadsheets through calamine: XLSX, XLSM and XLS. A sheet is a page: its name a heading, each of its islands
of cells a table. Charts and comments are read from the package's XML.

Values are those the file holds: formulas are not computed. Hidden sheets are left out and counted in a tag.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.blocks import Block, Heading, write_blocks
from espalier.data.readers.container import Package, attribute, local_name, open_zip
from espalier.data.readers.islands import Cells, read_islands
from espalier.data.readers.paged import join_pages
from espalier.data.readers.parts import linked, main_part, read_chart, read_properties, relations_of, write_comment
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile
from espalier.data.readers.tabletext import flatten, repeatable

MAX_CELLS = 20_000_000  # of the rectangle around what a sheet holds: the parser keeps all of it in memory
MAX_MERGED = 1_000
_CELL = re.compile(rb'\br="([A-Z]{1,3})([0-9]{1,7})"')
_OVERLAP_BYTES = 32


@versioned(1)
def read_sheets(source: SourceFile) -> Iterator[Document]:
    """One document, a page for each visible sheet."""
    data = source.read_bytes()
    extras: dict[str, list[Block]] = {}
    tags: dict[str, str] = {}
    if data[:2] == b"PK":
        with open_zip(io.BytesIO(data), "spreadsheet") as package:
            check_extents(package)
            extras = dict(_read_extras(package))
            tags = read_properties(package)
    texts, hidden = _read_workbook(data, extras)
    if hidden:
        tags["sheets.hidden"] = str(hidden)
    yield from join_pages(source, texts, tags)


def check_extents(package: Package) -> None:
    """Unpack everything within the limits, and refuse a sheet whose rectangle is too large for the parser's memory."""
    for name in sorted(package.names):
        is_sheet = name.startswith("xl/worksheets/") and name.endswith(".xml")
        tail = b""
        columns: set[bytes] = set()
        top, bottom = 1 << 30, 0
        for piece in package.stream(name):
            if not is_sheet:
                continue
            for column, row in _CELL.findall(tail + piece):
                columns.add(column)
                top, bottom = min(top, int(row)), max(bottom, int(row))
            tail = piece[-_OVERLAP_BYTES:]
        if columns:
            width = max(map(_column_number, columns)) - min(map(_column_number, columns)) + 1
            if width * (bottom - top + 1) > MAX_CELLS:
                raise InvalidInput(f"a sheet of {bottom - top + 1} x {width} cells, more than {MAX_CELLS}")


def write_value(value: Any) -> str:
    """A cell's value as a person would see it, without number formats."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, timedelta) else flatten(str(value))


def _read_workbook(data: bytes, extras: dict[str, list[Block]]) -> tuple[list[str], int]:
    """The text of each visible sheet, and the number of hidden ones."""
    import python_calamine as calamine

    texts, hidden = [], 0
    try:
        with calamine.CalamineWorkbook.from_filelike(io.BytesIO(data)) as book:
            for index, meta in enumerate(book.sheets_metadata):
                if meta.visible != calamine.SheetVisibleEnum.Visible:
                    hidden += 1
                    continue
                blocks: list[Block] = []
                if meta.typ == calamine.SheetTypeEnum.WorkSheet:
                    blocks = list(read_islands(_read_cells(book.get_sheet_by_index(index))))
                blocks += extras.get(meta.name, [])
                texts.append(write_blocks([Heading(meta.name, 2), *blocks]) if blocks else "")
    except calamine.PasswordError:
        raise InvalidInput("encrypted: it needs a password", hint="save it without a password") from None
    except calamine.CalamineError as error:
        raise InvalidInput(f"not a readable spreadsheet: {error}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how the parser's own language fails; it is no Exception here
            raise
        raise InvalidInput("not a readable spreadsheet: its parser gave up on it") from None
    return texts, hidden


def _read_cells(sheet: Any) -> Cells:
    """The sheet's cells as texts; a merged range repeats its value."""
    rows: Cells = [[write_value(value) for value in row] for row in sheet.iter_rows()]
    if sheet.start is None:
        return rows
    first_row = first_column = 0
    if len(rows) == sheet.height:  # without the empty margin
        first_row, first_column = sheet.start[0], sheet.start[1] if rows and len(rows[0]) == sheet.width else 0
    for (top, left), (bottom, right) in sheet.merged_cell_ranges or []:
        top, left, bottom, right = top - first_row, left - first_column, bottom - first_row, right - first_column
        inside = 0 <= top < len(rows) and 0 <= left < len(rows[top])
        if not inside or (bottom - top + 1) * (right - left + 1) > MAX_MERGED:
            continue
        for row in rows[top : bottom + 1]:
            for column in range(left, min(right + 1, len(row))):
                row[column] = row[column] or repeatable(rows[top][left])
    return rows


def _read_extras(package: Package) -> Iterator[tuple[str, list[Block]]]:
    """Sheet name -> its charts and comments."""
    part = main_part(package, "xl/workbook.xml")
    if part not in package or not part.endswith(".xml"):
        return  # the binary dialect
    relations = relations_of(package, part)
    people = _read_people(package)
    for sheet in package.xml(part).iter():
        if local_name(sheet) != "sheet":
            continue
        _, target = relations.get(_relation_id(sheet), ("", ""))
        blocks: list[Block] = []
        links = relations_of(package, target) if target else {}
        for drawing in linked(links, "drawing"):
            for chart in linked(relations_of(package, drawing), "chart"):
                blocks += read_chart(package, chart)
        blocks += _read_comments(package, links, people)
        yield attribute(sheet, "name"), blocks


def _relation_id(sheet: Any) -> str:
    found = [value for key, value in sheet.attrib.items() if key.endswith("}id")]
    return str(found[0]) if found else ""


def _read_people(package: Package) -> dict[str, str]:
    people: dict[str, str] = {}
    for name in sorted(package.names):
        if name.startswith("xl/persons/") and name.endswith(".xml"):
            for person in package.xml(name):
                people[attribute(person, "id")] = attribute(person, "displayName")
    return people


def _read_comments(package: Package, links: dict[str, tuple[str, str]], people: dict[str, str]) -> list[Block]:
    blocks: list[Block] = []
    for part in linked(links, "threadedComment"):
        for comment in package.xml(part) if part in package else ():
            blocks.append(
                write_comment(
                    people.get(attribute(comment, "personId"), ""), _text_of(comment), attribute(comment, "dT")
                )
            )
    for part in linked(links, "comments"):
        root = package.xml(part) if part in package else None
        if root is None:
            continue
        authors = [each.text or "" for each in root.iter() if local_name(each) == "author"]
        for comment in (each for each in root.iter() if local_name(each) == "comment"):
            number = attribute(comment, "authorId")
            author = authors[int(number)] if number.isdigit() and int(number) < len(authors) else ""
            if not author.startswith("tc="):  # the copy of a threaded comment for older readers
                blocks.append(write_comment(author, _text_of(comment)))
    return blocks


def _text_of(element: Any) -> str:
    return "".join(each.text or "" for each in element.iter() if local_name(each) in ("t", "text"))


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number
