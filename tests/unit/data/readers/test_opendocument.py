from __future__ import annotations

from collections.abc import Callable

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.readers.opendocument import read_odp, read_ods, read_odt
from espalier.data.readers.source import SourceFile
from espalier.testing.files import write_odf, write_zip

MakeSource = Callable[[str, bytes], SourceFile]


@pytest.fixture
def read(source: MakeSource) -> Callable[..., str]:
    def text_of(body: str, styles: str = "") -> str:
        (document,) = read_odt(source("t.odt", write_odf("text", body, styles)))
        return document.text

    return text_of


def cell(text: str, attributes: str = "") -> str:
    return f"<table:table-cell {attributes}><text:p>{text}</text:p></table:table-cell>"


def test_headings_paragraphs_and_white_space(read: Callable[..., str]) -> None:
    body = '<text:h text:outline-level="2">Head</text:h><text:p>a<text:s text:c="2"/>b<text:line-break/>c</text:p>'
    assert read(body + "<text:p><text:span>bo</text:span>ld</text:p>") == "## Head\n\na b\nc\n\nbold"


def test_lists_nest_and_count(read: Callable[..., str]) -> None:
    styles = '<text:list-style style:name="L1" xmlns:style="urn:s"><text:list-level-style-number/></text:list-style>'
    inner = "<text:list><text:list-item><text:p>inner</text:p></text:list-item></text:list>"
    items = f"<text:list-item><text:p>one</text:p>{inner}</text:list-item>"
    items += "<text:list-item><text:p>two</text:p></text:list-item>"
    assert read(f"<text:list>{items}</text:list>") == "- one\n    - inner\n- two"
    numbered = read(f'<text:list text:style-name="L1">{items}</text:list>', styles)
    assert numbered == "1. one\n    1. inner\n2. two"


def test_notes_boxes_and_annotations_follow_their_paragraph_and_deleted_text_does_not(read: Callable[..., str]) -> None:
    note = "<text:note-citation>1</text:note-citation><text:note-body><text:p>Why.</text:p></text:note-body>"
    box = "<draw:frame><draw:text-box><text:p>boxed</text:p></draw:text-box></draw:frame>"
    said = "<office:annotation><dc:creator>Ann</dc:creator><text:p>Hm.</text:p></office:annotation>"
    gone = "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
    text = read(f"{gone}<text:p>So<text:note>{note}</text:note>.{box}{said}</text:p>")
    assert text == "So[^1].\n\n[^1]: Why.\n\nboxed\n\n> Comment by Ann: Hm."


def test_a_table_is_a_table(read: Callable[..., str]) -> None:
    rows = "".join(f"<table:table-row>{cell(a)}{cell(b)}</table:table-row>" for a, b in (("a", "b"), ("1", "2")))
    assert read(f"<table:table>{rows}</table:table>") == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_sheet_is_a_page_and_empty_repeats_cost_nothing(source: MakeSource) -> None:
    filler = '<table:table-cell table:number-columns-repeated="16000"/>'
    empty = f'<table:table-row table:number-rows-repeated="1048000">{filler}</table:table-row>'
    rows = f"<table:table-row>{cell('a')}{cell('b')}{filler}</table:table-row>{empty}"
    rows += f"<table:table-row>{cell('c')}{cell('d')}</table:table-row>"
    rows += f"<table:table-row>{cell('e')}{cell('f')}</table:table-row>"
    data = write_odf("spreadsheet", f'<table:table table:name="S">{rows}</table:table>')
    (document,) = read_ods(source("t.ods", data))
    assert document.text == "## S\n\n| a | b |\n| --- | --- |\n\n| c | d |\n| --- | --- |\n| e | f |"


def test_cells_that_repeat_without_end_are_refused_or_cut(source: MakeSource) -> None:
    wide = cell("x", 'table:number-columns-repeated="16000"')
    row = f'<table:table-row table:number-rows-repeated="1000000">{wide}</table:table-row>'
    data = write_odf("spreadsheet", f'<table:table table:name="S">{row * 6}</table:table>')
    with pytest.raises(InvalidInput, match="more than 5000000 cells"):
        list(read_ods(source("t.ods", data)))


def test_a_slide_is_a_page(source: MakeSource) -> None:
    def page(text: str) -> str:
        return f"<draw:page><draw:frame><draw:text-box><text:p>{text}</text:p></draw:text-box></draw:frame></draw:page>"

    (document,) = read_odp(source("t.odp", write_odf("presentation", page("One") + page("Two"))))
    assert document.text == "One\n\f\nTwo" and [span.page for span in document.spans] == [1, 2]


def test_encrypted_torn_or_other_files_are_refused(source: MakeSource) -> None:
    manifest = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    for data, reason in (
        (write_zip({"META-INF/manifest.xml": manifest, "content.xml": "x"}), "encrypted"),
        (b"PK torn", "not a readable OpenDocument"),
        (write_odf("spreadsheet", ""), "there is no text in it"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            list(read_odt(source("t.odt", data)))
