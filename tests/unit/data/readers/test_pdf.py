"""PDF against files written here by hand: pages of raw content streams in Helvetica, and pages that are a picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pypdfium2
import pytest

from espalier.core.errors import InvalidInput
from espalier.data.readers import ocr
from espalier.data.readers.paged import PAGE_BREAK
from espalier.data.readers.pdf import read_pdf
from espalier.data.readers.plugin import reader_id
from espalier.data.readers.source import SourceFile

MakeSource = Callable[[str, bytes], SourceFile]


def text_at(x: float, y: float, text: str, size: float = 10) -> str:
    """A line of text at a place."""
    return f"BT /F1 {size} Tf 1 0 0 1 {x} {y} Tm ({text}) Tj ET\n"


def rule(x0: float, y0: float, x1: float, y1: float) -> str:
    """A drawn line."""
    return f"{x0} {y0} m {x1} {y1} l S\n"


def write_pages(contents: Sequence[str], rotate: int = 0) -> bytes:
    """A PDF of pages 400 x 400 points."""
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        _FONT,
        _FONT.replace(b"Helvetica", b"Helvetica-Bold"),
    ]
    kids = []
    for content in contents:
        kids.append(len(objects) + 1)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 400] /Rotate {rotate} "
            f"/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> /Contents {len(objects) + 2} 0 R >>".encode()
        )
        data = content.encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(data), data))
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] /Count {len(kids)} >>".encode()
    return _write(objects)


def write_scan(pdf: bytes) -> bytes:
    """The first page of a PDF as a picture on a page without text."""
    with pypdfium2.PdfDocument(pdf) as document:
        bitmap = document[0].render(scale=3, grayscale=True)
        rows = [bytes(bitmap.buffer)[y * bitmap.stride :][: bitmap.width] for y in range(bitmap.height)]
        width, height = bitmap.width, bitmap.height
    pixels = b"".join(rows)
    draw = b"400 0 0 400 0 0 cm /I1 Do"
    return _write(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
            b"<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray /BitsPerComponent 8 "
            b"/Length %d >>\nstream\n%s\nendstream" % (width, height, len(pixels), pixels),
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 400] /Resources << /XObject << /I1 3 0 R >> >> "
            b"/Contents 5 0 R >>",
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(draw), draw),
        ]
    )


def _write(objects: Sequence[bytes]) -> bytes:
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start)


_FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


@pytest.fixture
def read(source: MakeSource) -> Callable[..., str]:
    def text_of(*contents: str, rotate: int = 0) -> str:
        (document,) = read_pdf(source("t.pdf", write_pages(contents, rotate)))
        return document.text

    return text_of


def column(x: float, y: float, *lines: str, size: float = 10) -> str:
    """Lines of text under each other."""
    return "".join(text_at(x, y - 12 * at, line, size) for at, line in enumerate(lines))


PROSE = [f"This is line number {at} of a paragraph that goes on and on for long." for at in range(12)]


def test_each_page_gets_a_span_of_its_own_text(source: MakeSource) -> None:
    data = write_pages([text_at(50, 300, "First page."), "", text_at(50, 300, "Third page.")])
    file = source("t.pdf", data)
    (document,) = read_pdf(file)
    assert document.text == f"First page.{PAGE_BREAK}Third page."
    assert [(span.page, span.start, span.end) for span in document.spans] == [(1, 0, 11), (3, 0, 11)]
    assert {span.blob for span in document.spans} == {file.sha256}


def test_lines_of_large_type_are_headings_by_size(read: Callable[..., str]) -> None:
    page = text_at(50, 380, "The Title", 20) + text_at(50, 350, "A Section", 14) + column(50, 330, *PROSE)
    assert read(page).startswith(f"# The Title\n\n## A Section\n\n{PROSE[0]}\n{PROSE[1]}\n")


def bold_at(x: float, y: float, text: str) -> str:
    return text_at(x, y, text).replace("/F1", "/F2")


def test_a_bold_line_by_itself_is_a_heading_under_the_larger_ones_and_a_bold_word_is_not(
    read: Callable[..., str],
) -> None:
    page = text_at(50, 390, "The Title", 20) + bold_at(50, 370, "2.1 A section") + column(50, 350, *PROSE[:8])
    page += bold_at(50, 254, PROSE[8]) + bold_at(50, 220, "Warning: not one.") + column(50, 200, *PROSE[9:])
    headings = [line for line in read(page).split("\n") if line.startswith("#")]
    assert headings == ["# The Title", "## 2.1 A section"]


def test_a_wider_gap_between_lines_parts_paragraphs(read: Callable[..., str]) -> None:
    page = column(50, 300, *PROSE[:3]) + column(50, 300 - 5 * 12, *PROSE[3:6])
    assert read(page) == "\n".join(PROSE[:3]) + "\n\n" + "\n".join(PROSE[3:6])


def test_columns_that_line_up_are_a_table(read: Callable[..., str]) -> None:
    rows = [("Part", "Count", "Price"), ("Motor", "2", "12.50"), ("Wheel", "10", "3.00"), ("Belt", "1", "7.25")]
    table = "".join(
        text_at(x, 300 - 12 * at, cell)
        for at, row in enumerate(rows)
        for x, cell in zip((50, 150, 230), row, strict=True)
    )
    text = read(text_at(50, 340, "Our stock:") + table + text_at(50, 230, "That is all."))
    expected = "| Part | Count | Price |\n| --- | --- | --- |\n| Motor | 2 | 12.50 |\n| Wheel | 10 | 3.00 |"
    assert text == f"Our stock:\n\n{expected}\n| Belt | 1 | 7.25 |\n\nThat is all."


def lay_out(rows: Sequence[Sequence[str]], xs: Sequence[float], top: float = 300) -> str:
    """Rows of cells without rules."""
    return "".join(
        text_at(x, top - 12 * at, cell) for at, row in enumerate(rows) for x, cell in zip(xs, row, strict=True) if cell
    )


def test_a_row_that_fills_only_a_later_column_still_belongs_to_the_table(read: Callable[..., str]) -> None:
    rows = [("Part", "Count", "Price"), ("Motor", "2", "12.50"), ("", "10", ""), ("Belt", "", "7.25"), ("", "", "9.00")]
    expected = "| Part | Count | Price |\n| --- | --- | --- |\n| Motor | 2 | 12.50 |\n|  | 10 |  |\n| Belt |  | 7.25 |"
    assert read(lay_out(rows, (50, 150, 230))) == f"{expected}\n|  |  | 9.00 |"


def test_a_cells_words_may_run_on_in_the_next_line_but_figures_do_not(read: Callable[..., str]) -> None:
    rows = [("Part", "What", "Price"), ("Motor", "drives the", "12.50"), ("", "wheels", ""), ("Belt", "holds", "7.25")]
    text = read(lay_out(rows, (50, 150, 230)))
    assert text.split("\n")[2:] == ["| Motor | drives the wheels | 12.50 |", "| Belt | holds | 7.25 |"]


def test_two_lines_are_a_table_when_they_have_three_columns_and_not_when_they_have_two(
    read: Callable[..., str],
) -> None:
    three = lay_out([("No", "7", "Date"), ("Due", "9", "Paid")], (50, 150, 230))
    assert "|" not in read(lay_out([("/* one", "two", "three"), ("/* One", "Two", "Three")], (50, 95, 130)))
    assert read(three) == "| No | 7 | Date |\n| --- | --- | --- |\n| Due | 9 | Paid |"
    assert "|" not in read(lay_out([("No", "7"), ("Due", "9")], (50, 150)))


def grid(xs: Sequence[float], ys: Sequence[float]) -> str:
    """A table's rules."""
    across = "".join(rule(xs[0], y, xs[-1], y) for y in ys)
    return across + "".join(rule(x, ys[0], x, ys[-1]) for x in xs)


def test_a_ruled_table_keeps_a_cell_of_several_lines_together(read: Callable[..., str]) -> None:
    cells = text_at(52, 290, "Name") + text_at(152, 290, "What it is for") + text_at(52, 270, "Belt")
    cells += text_at(152, 270, "It turns the") + text_at(152, 260, "wheel.")
    text = read(
        text_at(50, 340, "Before.") + grid((50, 150, 300), (255, 282, 302)) + cells + text_at(50, 200, "After.")
    )
    table = "| Name | What it is for |\n| --- | --- |\n| Belt | It turns the wheel. |"
    assert text == f"Before.\n\n{table}\n\nAfter."


def test_a_cell_without_a_rule_to_its_neighbour_spans_both(read: Callable[..., str]) -> None:
    rules = "".join(rule(50, y, 290, y) for y in (240, 260, 280, 300))
    rules += rule(50, 240, 50, 300) + rule(290, 240, 290, 300) + rule(130, 240, 130, 300) + rule(210, 240, 210, 280)
    rows = [(285, ("Part", "Price", "")), (265, ("", "new", "old")), (245, ("Belt", "7", "5"))]
    cells = "".join(text_at(x, y, cell) for y, row in rows for x, cell in zip((55, 135, 215), row, strict=True))
    table = "| Part | Price | Price |\n| --- | --- | --- |\n|  | new | old |\n| Belt | 7 | 5 |"
    assert read(rules + cells) == table


def test_several_lines_of_figures_in_one_ruled_row_are_several_rows(read: Callable[..., str]) -> None:
    rules = grid((50, 130, 210, 290), (250, 280, 300))
    cells = "".join(text_at(x, 285, name) for x, name in zip((55, 135, 215), ("Year", "Ducks", "Geese"), strict=True))
    for y, row in ((268, ("2019", "120", "80")), (254, ("2020", "130", "95"))):
        cells += "".join(text_at(x, y, cell) for x, cell in zip((55, 135, 215), row, strict=True))
    assert read(rules + cells).endswith("| 2019 | 120 | 80 |\n| 2020 | 130 | 95 |")


def test_prose_in_two_columns_is_read_column_by_column_though_written_line_by_line(read: Callable[..., str]) -> None:
    left = [f"The left column says in its line {at} this." for at in range(8)]
    right = [f"The right one says in line {at} that." for at in range(8)]
    page = "".join(
        text_at(20, 380 - 12 * at, a, 8) + text_at(220, 380 - 12 * at, b, 8)
        for at, (a, b) in enumerate(zip(left, right, strict=True))
    )
    assert read(page) == "\n".join(left) + "\n\n" + "\n".join(right)


def test_a_list_is_no_table(read: Callable[..., str]) -> None:
    page = "".join(text_at(50, 300 - 12 * at, f"{at + 1}.") + text_at(90, 300 - 12 * at, "an item") for at in range(4))
    assert "|" not in read(page)


def test_a_table_of_contents_loses_its_dots(read: Callable[..., str]) -> None:
    titles = ["Preface", "First steps", "Last words"]
    page = column(50, 300, *(f"{title} {'. ' * 20}{at + 1}" for at, title in enumerate(titles)))
    assert read(page) == "| Preface | 1 |\n| --- | --- |\n| First steps | 2 |\n| Last words | 3 |"


def test_a_page_written_out_of_order_is_read_from_top_to_bottom(read: Callable[..., str]) -> None:
    order = [7, 2, 9, 0, 5, 3, 8, 1, 6, 4]
    page = "".join(text_at(50, 380 - 20 * at, f"line {at}") for at in order)
    assert read(page).split("\n") == [f"line {at}" for at in range(10)]


@pytest.mark.parametrize("rotate", [90, 180, 270])
def test_a_rotated_page_is_read_as_it_is_held(read: Callable[..., str], rotate: int) -> None:
    turn = {90: "0 1 -1 0 400 0", 180: "-1 0 0 -1 400 400", 270: "0 -1 1 0 0 400"}[rotate]
    rows = [("Part", "Count"), ("Motor", "2"), ("Wheel", "10")]
    cells = "".join(
        text_at(x, 290 - 20 * at, cell) for at, row in enumerate(rows) for x, cell in zip((55, 155), row, strict=True)
    )
    page = f"{turn} cm\n" + grid((50, 150, 250), (245, 265, 285, 305)) + cells
    assert read(page, rotate=rotate) == "| Part | Count |\n| --- | --- |\n| Motor | 2 |\n| Wheel | 10 |"


def test_pages_after_those_that_headings_are_judged_by_are_read_alike(
    read: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [text_at(50, 380, f"Title {at}", 20) + column(50, 340, *PROSE) for at in range(3)]
    whole = read(*pages)
    monkeypatch.setattr("espalier.data.readers.pdf.JUDGED_PAGES", 1)
    assert read(*pages) == whole and "# Title 2" in whole


# Scans


def test_a_scan_without_tesseract_says_so(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "find_tesseract", lambda: "")
    with pytest.raises(InvalidInput, match=r"no text layer.*no tesseract"):
        list(read_pdf(source("t.pdf", write_scan(write_pages([text_at(50, 300, "x")])))))


def test_a_scanned_page_among_others_is_counted_when_it_cannot_be_read(
    source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = "q 300 0 0 300 0 0 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \x80 EI Q"
    file = source("t.pdf", write_pages([text_at(50, 300, "Text."), "", picture]))
    monkeypatch.setattr(ocr, "find_tesseract", lambda: "")
    (document,) = read_pdf(file)
    assert document.tags["pdf.unread_pages"] == "1"  # the empty page is no scan

    def fail(*_: object) -> str:
        raise InvalidInput("tesseract failed")

    monkeypatch.setattr(ocr, "find_tesseract", lambda: "tesseract")
    monkeypatch.setattr(ocr, "recognise", fail)
    (document,) = read_pdf(file)
    assert document.text == "Text." and document.tags["pdf.unread_pages"] == "1"


def test_a_failing_tesseract_refuses_the_file(
    source: MakeSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "tesseract"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ncat > /dev/null\n[ "$1" = --list-langs ] && exit 0\necho broken >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(ocr, "find_tesseract", lambda: str(program))
    with pytest.raises(InvalidInput, match="tesseract failed: broken"):
        list(read_pdf(source("t.pdf", write_scan(write_pages([text_at(50, 300, "x")])))))


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_a_scan_is_read_by_tesseract(source: MakeSource) -> None:
    drawn = write_pages([text_at(30, 300, "The wombat sleeps", 30) + text_at(30, 250, "under the bridge.", 30)])
    (document,) = read_pdf(source("t.pdf", write_scan(drawn)))
    assert document.text.split() == ["The", "wombat", "sleeps", "under", "the", "bridge."]
    assert document.tags["pdf.scanned_pages"] == "1"


def test_a_reader_names_the_program_its_outcome_depends_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "tesseract"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo tesseract 9.9 || printf "List:\\neng\\ndeu\\nosd\\n"\n')
    program.chmod(0o755)
    monkeypatch.setattr(ocr, "find_tesseract", lambda: str(program))
    assert reader_id("t.pdf") == "pdf@3+tesseract 9.9 eng+deu"
    monkeypatch.setattr(ocr, "find_tesseract", lambda: "")
    assert reader_id("t.pdf") == "pdf@3"


# What is refused


@pytest.mark.parametrize("data", [b"%PDF-1.4 broken", b"no pdf at all", b"\x00" * 100])
def test_a_corrupt_pdf_is_refused(source: MakeSource, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a readable PDF"):
        list(read_pdf(source("t.pdf", data)))


def test_an_encrypted_pdf_says_that_it_needs_a_password(source: MakeSource) -> None:
    encrypt = b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >>" % (b"41" * 32, b"42" * 32)
    data = write_pages([text_at(50, 300, "secret")]).replace(
        b"/Root 1 0 R", b"/Root 1 0 R /ID [<00> <00>] /Encrypt %s" % encrypt
    )
    with pytest.raises(InvalidInput, match="encrypted: it needs a password"):
        list(read_pdf(source("t.pdf", data)))


def test_a_broken_page_costs_only_itself(source: MakeSource) -> None:
    data = write_pages([text_at(50, 300, "One."), text_at(50, 300, "Two."), text_at(50, 300, "Three.")])
    (document,) = read_pdf(source("t.pdf", data.replace(b"7 0 R 9 0 R]", b"99 0 R 9 0 R]")))
    assert document.text == f"One.{PAGE_BREAK}Three." and document.tags["pdf.broken_pages"] == "1"


def test_too_many_pages_are_refused(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.data.readers.pdf.MAX_PAGES", 1)
    with pytest.raises(InvalidInput, match="2 pages, more than 1"):
        list(read_pdf(source("t.pdf", write_pages(["", ""]))))
