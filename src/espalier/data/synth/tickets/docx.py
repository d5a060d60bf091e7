"""A small DOCX writer: headings, paragraphs and two-column tables in the fewest parts Word opens.

Written after ECMA-376 part 1 (WordprocessingML) and part 2 (packages). Knows nothing of tickets; same blocks, same
bytes: every zip entry bears the first day of the zip calendar.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, or a heading."""

    text: str
    style: Literal["", "Heading1", "Heading2"] = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells of text."""

    rows: tuple[tuple[str, ...], ...]


def write_docx(blocks: Sequence[Text | Table], footer: str = "") -> bytes:
    """A document of `blocks`, with `footer` at the foot of each page."""
    body = "".join([_paragraph(block) if isinstance(block, Text) else _table(block) for block in blocks])
    parts = {
        "[Content_Types].xml": _CONTENT_TYPES,
        "_rels/.rels": _PACKAGE_RELATIONS,
        "word/_rels/document.xml.rels": _DOCUMENT_RELATIONS,
        "word/styles.xml": _STYLES,
        "word/footer1.xml": f'{_XML}<w:ftr xmlns:w="{_W}">{_paragraph(Text(footer))}</w:ftr>',
        "word/document.xml": f"{_DOCUMENT}<w:body>{body}{_SECTION}</w:body></w:document>",
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as package:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_STORED  # deflate's bytes differ from one zlib to the next
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            package.writestr(entry, content.encode("utf-8"))
    return stream.getvalue()


def _paragraph(block: Text) -> str:
    style = f'<w:pPr><w:pStyle w:val="{block.style}"/></w:pPr>' if block.style else ""
    return f'<w:p>{style}<w:r><w:t xml:space="preserve">{escape(block.text)}</w:t></w:r></w:p>'


def _table(block: Table) -> str:
    columns = max(len(row) for row in block.rows)
    grid = '<w:gridCol w:w="4500"/>' * columns
    rows = "".join(
        [
            "<w:tr>" + "".join([f"<w:tc>{_CELL}{_paragraph(Text(cell))}</w:tc>" for cell in row]) + "</w:tr>"
            for row in block.rows
        ]
    )
    return f'<w:tbl><w:tblPr><w:tblW w:w="0" w:type="auto"/></w:tblPr><w:tblGrid>{grid}</w:tblGrid>{rows}</w:tbl>'


_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_DOCUMENT = f'{_XML}<w:document xmlns:w="{_W}" xmlns:r="{_R}">'
_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml"
_CELL = '<w:tcPr><w:tcW w:w="4500" w:type="dxa"/></w:tcPr>'
_SECTION = '<w:sectPr><w:footerReference w:type="default" r:id="rId2"/><w:pgSz w:w="11906" w:h="16838"/></w:sectPr>'
_CONTENT_TYPES = (
    f'{_XML}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/word/document.xml" ContentType="{_TYPE}.document.main+xml"/>'
    f'<Override PartName="/word/styles.xml" ContentType="{_TYPE}.styles+xml"/>'
    f'<Override PartName="/word/footer1.xml" ContentType="{_TYPE}.footer+xml"/></Types>'
)
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_PACKAGE_RELATIONS = (
    f'{_XML}<Relationships xmlns="{_RELATIONS}">'
    f'<Relationship Id="rId1" Type="{_R}/officeDocument" Target="word/document.xml"/></Relationships>'
)
_DOCUMENT_RELATIONS = (
    f'{_XML}<Relationships xmlns="{_RELATIONS}"><Relationship Id="rId1" Type="{_R}/styles" Target="styles.xml"/>'
    f'<Relationship Id="rId2" Type="{_R}/footer" Target="footer1.xml"/></Relationships>'
)
_STYLES = (
    f'{_XML}<w:styles xmlns:w="{_W}">'
    '<w:style w:type="paragraph" w:default="1" w:styleId="Normal"><w:name w:val="Normal"/></w:style>'
    '<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/><w:basedOn w:val="Normal"/></w:style>'
    '<w:style w:type="paragraph" w:styleId="Heading2"><w:name w:val="heading 2"/><w:basedOn w:val="Normal"/></w:style>'
    "</w:styles>"
)
