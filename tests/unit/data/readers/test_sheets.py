from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.readers.blocks import write_blocks
from espalier.data.readers.container import Limits
from espalier.data.readers.islands import read_islands
from espalier.data.readers.sheets import read_sheets, write_value
from espalier.data.readers.source import SourceFile
from espalier.testing.files import relations, write_xls, write_xlsx

MakeSource = Callable[[str, bytes], SourceFile]
SHEET = "xl/worksheets/sheet1.xml"
RULE = "\n| --- | --- |\n"


def sheet_xml(cells: str, merged: str = "") -> dict[str, str]:
    ns = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return {SHEET: f'<worksheet xmlns="{ns}"><sheetData>{cells}</sheetData>{merged}</worksheet>'}


def test_each_sheet_is_a_page_with_its_name_as_heading(source: MakeSource) -> None:
    data = write_xlsx({"One": [["a", "b"], ["1", "2.5"]], "Empty": [], "Two": [["c", "d"], ["3", "x|y"]]})
    (document,) = read_sheets(source("t.xlsx", data))
    assert document.text == f"## One\n\n| a | b |{RULE}| 1 | 2.5 |\n\f\n## Two\n\n| c | d |{RULE}| 3 | x\\|y |"
    assert [span.page for span in document.spans] == [1, 3]


def test_an_old_workbook_is_read_too(source: MakeSource) -> None:
    (document,) = read_sheets(source("t.xls", write_xls([["a", "Wömbat"], ["1", "2"]])))
    assert document.text == f"## Sheet1\n\n| a | Wömbat |{RULE}| 1 | 2 |"


def test_hidden_sheets_are_counted_and_not_read(source: MakeSource) -> None:
    data = write_xlsx({"Seen": [["a", "b"]], "Secret": [["hush", "x"]]}, hidden=["Secret"])
    (document,) = read_sheets(source("t.xlsx", data))
    assert "hush" not in document.text and document.tags["sheets.hidden"] == "1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (True, "TRUE"),
        (date(2024, 5, 7), "2024-05-07"),
        (datetime(2024, 5, 7), "2024-05-07"),
        (datetime(2024, 5, 7, 8, 30), "2024-05-07 08:30:00"),
        (time(8, 30), "08:30:00"),
        (timedelta(hours=30), "1 day, 6:00:00"),
        (" two\nlines ", "two lines"),
    ],
)
def test_values_are_written_as_a_person_would(value: object, text: str) -> None:
    assert write_value(value) == text


def test_islands_of_cells_are_tables_of_their_own() -> None:
    cells = [
        ["a", "b", "", "x", "y"],
        ["1", "2", "", "3", "4"],
        ["", "", "", "", ""],
        ["", "c", "d", "", ""],
        ["", "5", "6", "", ""],
    ]
    tables = [f"| a | b |{RULE}| 1 | 2 |", f"| x | y |{RULE}| 3 | 4 |", f"| c | d |{RULE}| 5 | 6 |"]
    assert write_blocks(read_islands(cells)) == "\n\n".join(tables)


def test_a_title_over_a_table_is_a_paragraph() -> None:
    merged = [["Title", "Title"], ["a", "b"], ["1", "2"]]
    assert write_blocks(read_islands(merged)) == f"Title\n\n| a | b |{RULE}| 1 | 2 |"
    assert write_blocks(read_islands([["Only this."]])) == "Only this."


def test_a_merged_range_repeats_its_value(source: MakeSource) -> None:
    cells = '<row r="1"><c r="A1" t="inlineStr"><is><t>x</t></is></c></row><row r="2"><c r="A2"><v>1</v></c>'
    cells += '<c r="B2"><v>2</v></c></row><row r="3"><c r="A3"><v>7</v></c><c r="B3"><v>8</v></c></row>'
    parts = sheet_xml(cells, '<mergeCells count="1"><mergeCell ref="A1:B1"/></mergeCells>')
    (document,) = read_sheets(source("t.xlsx", write_xlsx({"S": [[]]}, parts)))
    assert document.text == f"## S\n\nx\n\n| 1 | 2 |{RULE}| 7 | 8 |"


def test_charts_and_comments_follow_their_sheet(source: MakeSource) -> None:
    chart = "".join(
        f'<c:{name}><c:pt idx="0"><c:v>{value}</c:v></c:pt></c:{name}>'
        for name, value in (("tx", "Ducks"), ("cat", "May"), ("val", "4"))
    )
    extra = {
        "xl/worksheets/_rels/sheet1.xml.rels": relations(
            {"d": ("drawing", "../drawings/d.xml"), "c": ("comments", "../comments1.xml")}
        ),
        "xl/drawings/d.xml": "<drawing/>",
        "xl/drawings/_rels/d.xml.rels": relations({"c": ("chart", "../charts/c.xml")}),
        "xl/charts/c.xml": f'<c:space xmlns:c="urn:c"><c:barChart><c:ser>{chart}</c:ser></c:barChart></c:space>',
        "xl/comments1.xml": "<comments><authors><author>Ann</author></authors><commentList>"
        '<comment authorId="0"><text><t>Really?</t></text></comment></commentList></comments>',
    }
    (document,) = read_sheets(source("t.xlsx", write_xlsx({"S": [["a", "b"], ["1", "2"]]}, extra)))
    expected = f"Bar chart\n\n|  | Ducks |{RULE}| May | 4 |\n\n> Comment by Ann: Really?"
    assert document.text.endswith(expected)


def test_a_sheet_of_two_cells_at_the_ends_of_the_world_is_refused(source: MakeSource) -> None:
    cells = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
    with pytest.raises(InvalidInput, match="1048576 x 16384 cells"):
        list(read_sheets(source("t.xlsx", write_xlsx({"S": [[]]}, sheet_xml(cells)))))


def test_a_bomb_in_any_part_is_refused_before_the_parser_sees_it(
    source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier.data.readers.container.LIMITS", Limits(member_bytes=100_000))
    data = write_xlsx({"S": [["a", "b"]]}, {"xl/sharedStrings.xml": "<sst>" + " " * 200_000 + "</sst>"})
    with pytest.raises(InvalidInput, match="more than 100000 bytes"):
        list(read_sheets(source("t.xlsx", data)))


@pytest.mark.parametrize("data", [b"PK\x03\x04 torn", b"no workbook", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600)])
def test_a_corrupt_workbook_is_refused(source: MakeSource, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a readable spreadsheet"):
        list(read_sheets(source("t.xlsx", data)))
