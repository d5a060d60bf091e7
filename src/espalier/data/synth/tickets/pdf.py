"""A small PDF 1.4 writer: lines of Latin text in Helvetica on A4 pages, with a real text layer.

Written after ISO 32000-1 (7.5 file structure, 9.4 text objects, annex D.2 WinAnsiEncoding). Knows nothing of tickets;
same lines, same bytes: it writes no date and no id.
"""

from __future__ import annotations

from collections.abc import Sequence

_WIDTH_PT, _HEIGHT_PT = 595, 842  # A4
_MARGIN_PT = 64
_SIZE_PT = 10
_LEADING_PT = 14
LINES_ON_PAGE = (_HEIGHT_PT - 2 * _MARGIN_PT) // _LEADING_PT
CHARS_ON_LINE = 92  # what fits between the margins, at the mean width of a Helvetica letter


def write_pdf(pages: Sequence[Sequence[str]]) -> bytes:
    """A PDF with one page for each list of lines. A letter that Windows-1252 has not becomes `?`."""
    first_page = 4
    page_ids = [first_page + 2 * i for i in range(len(pages))]
    kids = " ".join([f"{page} 0 R" for page in page_ids])
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode("ascii"),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for page_id, lines in zip(page_ids, pages, strict=True):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {_WIDTH_PT} {_HEIGHT_PT}]"
            f" /Resources << /Font << /F1 3 0 R >> >> /Contents {page_id + 1} 0 R >>".encode("ascii")
        )
        content = _draw_lines(lines)
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    return _assemble(objects)


def _draw_lines(lines: Sequence[str]) -> bytes:
    """A text object: start at the upper left, then one line below the other."""
    top = _HEIGHT_PT - _MARGIN_PT
    parts = [f"BT /F1 {_SIZE_PT} Tf {_LEADING_PT} TL {_MARGIN_PT} {top} Td".encode("ascii")]
    parts += [b"(" + _escape(line) + b") Tj T*" for line in lines]
    return b"\n".join([*parts, b"ET"])


def _escape(line: str) -> bytes:
    raw = line.encode("cp1252", "replace")
    return raw.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _assemble(objects: Sequence[bytes]) -> bytes:
    """Header, objects numbered from 1, cross-reference table, trailer."""
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join([b"%010d 00000 n \n" % offset for offset in offsets])
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)
