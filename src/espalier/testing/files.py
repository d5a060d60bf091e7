"""The smallest files of many formats, for tests of readers: written here by hand, from the formats' specifications.

Every writer gives bytes; same arguments, same bytes. Nothing here is meant for people to open.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Rows = Sequence[Sequence[str]]
_SECTOR, _MINI, _CUTOFF = 512, 64, 4096
_FREE, _END, _FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATION = '<Relationship Id="{0}" Type="' + _OFFICE + '/{1}" Target="{2}"/>'


def write_zip(members: Mapping[str, str | bytes]) -> bytes:
    """A package of members by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as package:
        for name, content in members.items():
            package.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def relations(links: Mapping[str, tuple[str, str]]) -> str:
    """A relations part: id -> (kind, target)."""
    found = "".join(_RELATION.format(key, kind, target) for key, (kind, target) in links.items())
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{found}</Relationships>'


def write_xlsx(sheets: Mapping[str, Rows], extra: Mapping[str, str] | None = None, hidden: Sequence[str] = ()) -> bytes:
    """A workbook of sheets of texts and numbers; `extra` adds or replaces parts."""
    entries = ""
    for at, name in enumerate(sheets, 1):
        state = ' state="hidden"' if name in hidden else ""
        entries += f'<sheet name="{escape(name)}" sheetId="{at}"{state} r:id="s{at}"/>'
    members = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"/>',
        "_rels/.rels": relations({"r1": ("officeDocument", "xl/workbook.xml")}),
        "xl/workbook.xml": f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets>{entries}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(
            {f"s{at}": ("worksheet", f"worksheets/sheet{at}.xml") for at in range(1, len(sheets) + 1)}
        ),
    }
    for at, rows in enumerate(sheets.values(), 1):
        body = "".join(f"<row>{''.join(map(_xlsx_cell, row))}</row>" for row in rows)
        members[f"xl/worksheets/sheet{at}.xml"] = (
            f'<worksheet xmlns="{_SHEET}"><sheetData>{body}</sheetData></worksheet>'
        )
    return write_zip(members | dict(extra or {}))


def _xlsx_cell(value: str) -> str:
    if not value:
        return "<c/>"
    if value.replace(".", "", 1).isdigit():
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'


def write_xls(rows: Rows) -> bytes:
    """A BIFF8 workbook with one sheet of texts (MS-XLS)."""

    def record(kind: int, data: bytes = b"") -> bytes:
        return struct.pack("<HH", kind, len(data)) + data

    def begin(kind: int) -> bytes:
        return record(0x0809, struct.pack("<HHHHII", 0x0600, kind, 0x0DBB, 0x07CC, 0, 6))

    name = b"Sheet1"
    head = begin(0x0005)
    place = len(head) + 4 + 8 + len(name) + 4
    sheet = begin(0x0010)
    for at, row in enumerate(rows):
        for column, text in enumerate(row):
            packed = text.encode("utf-16-le")
            sheet += record(0x0204, struct.pack("<HHHHB", at, column, 0, len(text), 1) + packed)
    bound = record(0x0085, struct.pack("<IBBBB", place, 0, 0, len(name), 0) + name)
    return write_compound({"Workbook": head + bound + record(0x000A) + sheet + record(0x000A)})


def write_pptx(slides: Sequence[str], extra: Mapping[str, str] | None = None) -> bytes:
    """A presentation of slides, each given as the XML of its shapes; `extra` adds or replaces parts."""
    ns = 'xmlns:p="urn:p" xmlns:a="urn:a" xmlns:r="urn:r" xmlns:c="urn:c" xmlns:m="urn:m"'
    numbers = range(1, len(slides) + 1)
    members = {
        "_rels/.rels": relations({"r1": ("officeDocument", "ppt/presentation.xml")}),
        "ppt/presentation.xml": f"<p:presentation {ns}><p:sldIdLst>"
        + "".join(f'<p:sldId id="{at}" r:id="s{at}"/>' for at in numbers)
        + "</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations({f"s{at}": ("slide", f"slides/slide{at}.xml") for at in numbers}),
    }
    for at, shapes in zip(numbers, slides, strict=True):
        tree = f"<p:cSld><p:spTree>{shapes}</p:spTree></p:cSld>"
        members[f"ppt/slides/slide{at}.xml"] = f"<p:sld {ns}>{tree}</p:sld>"
    return write_zip(members | dict(extra or {}))


def slide_text(*paragraphs: str, kind: str = "") -> str:
    """A shape of paragraphs; `kind` is its placeholder's type (`title`, `body`); none makes a text box."""
    holder = f'<p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>' if kind else ""
    body = "".join(f"<a:p><a:r><a:t>{escape(text)}</a:t></a:r></a:p>" for text in paragraphs)
    return f"<p:sp>{holder}<p:txBody>{body}</p:txBody></p:sp>"


def write_odf(kind: str, body: str, styles: str = "") -> bytes:
    """An OpenDocument; `kind` is text, spreadsheet or presentation, `body` the XML inside `office:{kind}`."""
    ns = " ".join(f'xmlns:{name}="urn:{name}"' for name in ("office", "text", "table", "draw", "dc", "presentation"))
    content = (
        f"<office:document-content {ns}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    return write_zip({"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content})


def write_epub(chapters: Sequence[str], metadata: str = "", extra: Mapping[str, str] | None = None) -> bytes:
    """A book of chapters, each given as the XHTML inside its body."""
    items = "".join(
        f'<item id="c{at}" href="c%20{at}.xhtml" media-type="application/xhtml+xml"/>' for at in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{at}"/>' for at in range(len(chapters)))
    members = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfile full-path="book/book.opf"/></container>',
        "book/book.opf": f'<package xmlns:dc="urn:dc"><metadata>{metadata}</metadata><manifest>{items}</manifest>'
        f"<spine>{spine}</spine></package>",
    }
    for at, body in enumerate(chapters):
        members[f"book/c {at}.xhtml"] = f"<html xmlns='http://www.w3.org/1999/xhtml'><body>{body}</body></html>"
    return write_zip(members | dict(extra or {}))


def write_notebook(cells: Sequence[Mapping[str, object]], language: str = "python") -> bytes:
    """A Jupyter notebook (nbformat 4)."""
    metadata = {"language_info": {"name": language}}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}).encode()


def write_msg(
    properties: Mapping[int, str | bytes], attachments: Sequence[Mapping[int, str | bytes]] = (), sent: int = 0
) -> bytes:
    """An Outlook mail (MS-OXMSG): MAPI property id -> text or bytes; `sent` in 100 ns since 1601."""
    fixed = bytes(32) + (struct.pack("<HHIQ", 0x0040, 0x0039, 6, sent) if sent else b"")
    streams = {"__properties_version1.0": fixed, **_mapi("", properties)}
    for number, attachment in enumerate(attachments):
        folder = f"__attach_version1.0_#{number:08X}/"
        streams |= {f"{folder}__properties_version1.0": bytes(8), **_mapi(folder, attachment)}
    return write_compound(streams)


def _mapi(folder: str, properties: Mapping[int, str | bytes]) -> dict[str, bytes]:
    return {
        f"{folder}__substg1.0_{key:04X}{'001F' if isinstance(value, str) else '0102'}": value.encode("utf-16-le")
        if isinstance(value, str)
        else value
        for key, value in properties.items()
    }


def write_compound(streams: Mapping[str, bytes]) -> bytes:
    """A compound file (MS-CFB, version 3) of streams by path."""
    mini, mini_fat = b"", list[int]()
    sectors, fat = list[bytes](), list[int]()
    places = {}
    for name, data in streams.items():
        if len(data) < _CUTOFF:
            places[name] = _chain(mini_fat, -(-len(data) // _MINI))
            mini += data.ljust(-(-len(data) // _MINI) * _MINI, b"\x00")
        else:
            places[name] = _place(sectors, fat, data)
    table = struct.pack(f"<{len(mini_fat)}I", *mini_fat)
    mini_at = _place(sectors, fat, mini) if mini else _END
    table_at = _place(sectors, fat, table.ljust(-(-len(table) // _SECTOR) * _SECTOR, b"\xff")) if table else _END
    table_sectors = -(-len(table) // _SECTOR)
    folders = _directory(streams, places, mini_at, len(mini))
    folders_at = _place(sectors, fat, folders)
    count = 1
    while count * (_SECTOR // 4) < len(fat) + count:
        count += 1
    fat_at = len(fat)
    fat += [_FAT] * count
    packed = struct.pack(f"<{len(fat)}I", *fat).ljust(count * _SECTOR, b"\xff")
    places_of_fat = [fat_at + at if at < count else _FREE for at in range(109)]
    head = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    head += struct.pack("<IIIIIIIII", 0, count, folders_at, 0, _CUTOFF, table_at, table_sectors, _END, 0)
    return head + struct.pack("<109I", *places_of_fat) + b"".join(sectors) + packed


def _chain(table: list[int], count: int) -> int:
    """Append a chain of `count` entries; where it begins."""
    if not count:
        return _END
    start = len(table)
    table += [*range(start + 1, start + count), _END]
    return start


def _place(sectors: list[bytes], fat: list[int], data: bytes) -> int:
    count = -(-len(data) // _SECTOR)
    sectors.append(data.ljust(count * _SECTOR, b"\x00"))
    return _chain(fat, count)


def _directory(streams: Mapping[str, bytes], places: Mapping[str, int], mini_at: int, mini_bytes: int) -> bytes:
    """Directory entries; the children of a folder hang on each other's right sides."""
    folders = sorted({"/".join(name.split("/")[:depth]) for name in streams for depth in range(1, name.count("/") + 1)})
    names = ["", *folders, *streams]
    numbers = {name: at for at, name in enumerate(names)}
    entries = []
    for name in names:
        parent = name.rpartition("/")[0]
        siblings = sorted(
            (each for each in names if each and each.rpartition("/")[0] == parent and name),
            key=lambda each: (len(each), each.upper()),
        )
        at = siblings.index(name) + 1 if name else 0
        right = numbers[siblings[at]] if name and at < len(siblings) else _FREE
        inner = sorted(
            (each for each in names if each and each.rpartition("/")[0] == name),
            key=lambda each: (len(each), each.upper()),
        )
        is_stream = name in streams
        first = numbers[inner[0]] if inner and not is_stream else _FREE
        label = (name.rpartition("/")[2] or "Root Entry").encode("utf-16-le")
        kind = 2 if is_stream else 1 if name else 5
        start = places[name] if is_stream else 0 if name else mini_at
        size = len(streams[name]) if is_stream else 0 if name else mini_bytes
        entries.append(
            label.ljust(64, b"\x00")
            + struct.pack("<HBBIII", len(label) + 2, kind, 1, _FREE, right, first)
            + bytes(36)
            + struct.pack("<IQ", start, size)
        )
    while len(entries) % 4:
        entries.append(bytes(68) + struct.pack("<III", _FREE, _FREE, _FREE) + bytes(48))
    return b"".join(entries)
