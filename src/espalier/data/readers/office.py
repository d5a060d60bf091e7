"""DOCX read straight from its XML (ECMA-376 part 1): paragraphs and tables of the body, in order.

Headers, footers, comments, deleted text and pictures are left out. Does not know spreadsheets or slides.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.source import SourceFile
from espalier.data.readers.tabletext import write_rows

MAX_UNPACKED_BYTES = 1 << 26
_BODY = "word/document.xml"
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_BREAKS = {f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}tab": "\t", f"{_W}noBreakHyphen": "-"}


def read_docx(source: SourceFile) -> Iterator[Document]:
    """One document: a line a paragraph; of a table, `name: value` for two columns and `a | b | c` for more."""
    body = _parse(_read_body(source)).find(f"{_W}body")
    lines = list(_blocks(body)) if body is not None else []
    text = "\n".join(lines)
    if text.strip():
        yield Document(source.document_id(1), text, source.span(end=len(text)))


def _read_body(source: SourceFile) -> bytes:
    try:
        with zipfile.ZipFile(source.path) as package, package.open(_BODY) as stream:
            data = stream.read(MAX_UNPACKED_BYTES + 1)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, KeyError, RuntimeError) as error:
        raise InvalidInput(f"not a readable DOCX: {error}") from None
    if len(data) > MAX_UNPACKED_BYTES:
        raise InvalidInput(f"unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    return data


def _parse(data: bytes) -> Any:
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise InvalidInput(f"not a readable DOCX: {error}") from None


def _blocks(parent: Any) -> Iterator[str]:
    for element in parent:
        if element.tag == f"{_W}p":
            yield _paragraph(element)
        elif element.tag == f"{_W}tbl":
            rows = ([" ".join(_blocks(cell)) for cell in row.iter(f"{_W}tc")] for row in element.iter(f"{_W}tr"))
            yield from write_rows(rows)
        elif element.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}smartTag"):
            yield from _blocks(element)


def _paragraph(paragraph: Any) -> str:
    parts = []
    for element in paragraph.iter():
        if element.tag == f"{_W}t":
            parts.append(element.text or "")
        else:
            parts.append(_BREAKS.get(element.tag, ""))
    return "".join(parts)
