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
# Elements go by their local names: the strict and the transitional dialect differ in namespaces only.
_BREAKS = {"br": "\n", "cr": "\n", "tab": "\t", "noBreakHyphen": "-"}
_WRAPPERS = {"sdt", "sdtContent", "ins", "smartTag", "customXml", "moveTo"}
# `Fallback` repeats what `Choice` holds, for older readers.
_SKIPPED = {"del", "moveFrom", "Fallback", "pPr", "rPr", "tblPr"}


def read_docx(source: SourceFile) -> Iterator[Document]:
    """One document: a line a paragraph; of a table, `name: value` for two columns and `a | b | c` for more."""
    body = next((element for element in _parse(_read_body(source)) if _name(element) == "body"), None)
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
        name = _name(element)
        if name == "p":
            yield "".join(_inline(element))
        elif name == "tbl":
            rows = ([" ".join(_blocks(cell)) for cell in _find(row, "tc")] for row in _find(element, "tr"))
            yield from write_rows(rows)
        elif name in _WRAPPERS:
            yield from _blocks(element)


def _find(parent: Any, name: str) -> Iterator[Any]:
    for element in parent:
        if _name(element) == name:
            yield element
        elif _name(element) in _WRAPPERS:
            yield from _find(element, name)


def _inline(parent: Any) -> Iterator[str]:
    for element in parent:
        name = _name(element)
        if name == "t":
            yield element.text or ""
        elif name in _BREAKS:
            yield _BREAKS[name]
        elif name == "txbxContent":
            yield "\n" + "\n".join(_blocks(element)) + "\n"
        elif name not in _SKIPPED:
            yield from _inline(element)


def _name(element: Any) -> str:
    tag = element.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""
