"""One small good file of each document format, by suffix, each holding the word "Wombat": for tests of readers."""

from __future__ import annotations

from email.message import EmailMessage

from espalier.data.readers.code import LANGUAGES
from espalier.data.synth.tickets.docx import Table, Text, write_docx
from espalier.data.synth.tickets.pdf import write_pdf
from espalier.testing import files

_ROWS = [["animal", "note"], ["Wombat", "digs"], ["Bear", "sleeps"]]
_HTML = (
    b'<html lang="en"><head><meta charset="utf-8"><title>T</title></head><body><main><h1>A Wombat.</h1>'
    b"<ul><li>digs<li>sleeps</ul><table><tr><th>a<th>b<tr><td rowspan=2>1<td>2<tr><td>3</table></main></body></html>"
)
_PARAGRAPHS = (
    '<text:h text:outline-level="1">A Wombat.</text:h>'
    "<text:list><text:list-item><text:p>digs</text:p></text:list-item></text:list>"
)
_CELLS = "<table:table-cell><text:p>Wombat</text:p></table:table-cell>"
_SHEET = f'<table:table table:name="S"><table:table-row>{_CELLS * 2}</table:table-row></table:table>'
_SLIDE = "<draw:page><draw:frame><draw:text-box><text:p>Wombat</text:p></draw:text-box></draw:frame></draw:page>"
_MARKDOWN = "---\ntitle: Animals\n---\n# Wombat\n\nÜber Höhlen.\n\n<table><tr><th>a<th>b</table>\n".encode()


def document_samples() -> dict[str, bytes]:
    """Suffix -> a file of it."""
    docx = write_docx(
        [Text("A Wombat.", "Heading1"), Text("It digs."), Table((("a", "b", "c"), ("1", "2", "3")))], "foot"
    )
    shapes = files.slide_text("A Wombat.", kind="title") + files.slide_text("digs", "sleeps", kind="body")
    pptx = files.write_pptx([shapes, files.slide_text("boxed")])
    xlsx = files.write_xlsx({"S": _ROWS})
    cells: list[dict[str, object]] = [
        {"cell_type": "markdown", "source": "# Wombat"},
        {"cell_type": "code", "source": "x", "outputs": []},
    ]
    return dict.fromkeys(LANGUAGES, b"wombat = 'Wombat'  # digs\n") | {
        "docm": docx,
        "docx": docx,
        "eml": _mail(),
        "epub": files.write_epub(["<h1>Wombat</h1><p>It digs.</p>"], "<dc:title>Animals</dc:title>"),
        "htm": _HTML,
        "html": _HTML,
        "ipynb": files.write_notebook(cells),
        "markdown": _MARKDOWN,
        "md": _MARKDOWN,
        "msg": files.write_msg({0x37: "Wombat", 0x1000: "It digs."}, [{0x3707: "a.txt", 0x3701: b"hole"}]),
        "odp": files.write_odf("presentation", _SLIDE),
        "ods": files.write_odf("spreadsheet", _SHEET),
        "odt": files.write_odf("text", _PARAGRAPHS),
        "pdf": write_pdf([["A Wombat."], ["On page two."]]),
        "pptm": pptx,
        "pptx": pptx,
        "rst": b"Wombat\n======\n\nIt digs.\n\n== ==\na  b\n== ==\n1  2\n== ==\n\n.. code:: c\n\n   x;\n",
        "rtf": rb"{\rtf1\ansi\ansicpg1252 A Wombat. \'e4\par\trowd\cellx1 a\cell b\cell\row}",
        "txt": "Wombat und Bär".encode("cp1252"),
        "xhtml": _HTML,
        "xls": files.write_xls(_ROWS),
        "xlsm": xlsx,
        "xlsx": xlsx,
    }


def _mail() -> bytes:
    message = EmailMessage()
    message["Subject"] = "Wombat"
    message.set_content("It dug a hole.\n")
    message.add_alternative("<p>It dug a <b>hole</b>.</p>", subtype="html")
    message.add_attachment(b"# Holes\n", maintype="text", subtype="markdown", filename="holes.md")
    # The boundaries are drawn at random unless they are set.
    message.set_boundary("outer")
    for part in message.walk():
        if part.get_content_type() == "multipart/alternative":
            part.set_boundary("inner")
    return bytes(message)
