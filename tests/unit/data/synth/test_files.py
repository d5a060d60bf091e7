"""Our PDF and DOCX writers against readers that are not ours."""

from __future__ import annotations

import io
import zipfile
from xml.etree import ElementTree

import kreuzberg
import pypdfium2
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.data.synth.tickets.docx import Table, Text, write_docx
from espalier.data.synth.tickets.pdf import write_pdf

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def read_pdf(data: bytes) -> list[list[str]]:
    with pypdfium2.PdfDocument(data) as pdf:
        return [pdf[i].get_textpage().get_text_range().split("\r\n") for i in range(len(pdf))]


def test_pages_and_lines_come_back_as_they_were_written() -> None:
    pages = [["Service report", "a (b) \\ c)", "Größe 5 €"], ["second page", "last line"]]
    assert read_pdf(write_pdf(pages)) == pages


def test_a_letter_the_encoding_has_not_is_marked_rather_than_lost() -> None:
    assert read_pdf(write_pdf([["Łódź"]])) == [["?ód?"]]


@settings(max_examples=30)
@given(line=st.from_regex(r"[A-Za-z0-9()\\<>/%\[\]]{1,20}", fullmatch=True))
def test_no_sign_of_the_syntax_breaks_a_pdf(line: str) -> None:
    assert read_pdf(write_pdf([[line]])) == [[line]]


def test_every_object_stands_where_the_cross_reference_table_says() -> None:
    data = write_pdf([["one"], ["two"]])
    table = data[int(data.rsplit(b"startxref\n", 1)[1].split(b"\n")[0]) :].split(b"\n")
    assert table[0] == b"xref"
    for number, entry in enumerate(table[3 : 2 + int(table[1].split()[1])], 1):
        assert data[int(entry[:10]) :].startswith(b"%d 0 obj" % number)


def test_a_document_comes_back_with_its_headings_table_and_markup_signs() -> None:
    data = write_docx(
        [Text("Case <1> & more", "Heading1"), Table((("Ticket", "LK-1"), ("By", "A & B"))), Text("End.")], "foot"
    )
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        assert package.testzip() is None
        tree = ElementTree.fromstring(package.read("word/document.xml"))
        parts = {name: ElementTree.fromstring(package.read(name)) for name in package.namelist()}
    assert [node.text for node in tree.iter(f"{W}t")] == ["Case <1> & more", "Ticket", "LK-1", "By", "A & B", "End."]
    assert len(tree.findall(f".//{W}tr")) == 2
    named = {node.attrib["PartName"].lstrip("/") for node in parts["[Content_Types].xml"] if "PartName" in node.attrib}
    assert named <= set(parts)
    text = kreuzberg.extract_bytes_sync(data, DOCX).content
    assert all(word in text for word in ("Case", "LK-1", "End."))  # it drops signs that XML escapes


def test_the_same_content_gives_the_same_bytes() -> None:
    assert write_pdf([["x"]]) == write_pdf([["x"]])
    assert write_docx([Text("x")]) == write_docx([Text("x")])
