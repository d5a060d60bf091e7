from __future__ import annotations

from collections.abc import Callable

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.readers.slides import read_slides
from espalier.data.readers.source import SourceFile
from espalier.testing.files import relations, slide_text, write_pptx, write_zip

MakeSource = Callable[[str, bytes], SourceFile]


@pytest.fixture
def read(source: MakeSource) -> Callable[..., str]:
    def text_of(*slides: str, **extra: str) -> str:
        (document,) = read_slides(
            source("t.pptx", write_pptx(slides, {k.replace("__", "/"): v for k, v in extra.items()}))
        )
        return document.text

    return text_of


def test_a_slide_is_a_page_with_its_title_as_heading_and_its_body_as_list(source: MakeSource) -> None:
    first = slide_text("The title", kind="title") + slide_text("one", "two", kind="body") + slide_text("boxed")
    data = write_pptx([first, slide_text("Second", kind="ctrTitle")])
    (document,) = read_slides(source("t.pptx", data))
    assert document.text == "# The title\n\n- one\n- two\n\nboxed\n\f\n# Second"
    assert [span.page for span in document.spans] == [1, 2]


def test_a_single_paragraph_in_a_body_is_no_list(read: Callable[..., str]) -> None:
    assert read(slide_text("Only this.", kind="body")) == "Only this."


def test_marks_and_levels_of_paragraphs_are_kept(read: Callable[..., str]) -> None:
    def line(text: str, properties: str) -> str:
        return f"<a:p>{properties}<a:r><a:t>{text}</a:t></a:r></a:p>"

    body = line("plain", "<a:pPr><a:buNone/></a:pPr>") + line("dot", '<a:pPr><a:buChar char="-"/></a:pPr>')
    body += line("deep", '<a:pPr lvl="1"/>') + "".join(line(text, "<a:pPr><a:buAutoNum/></a:pPr>") for text in "ab")
    assert read(f"<p:sp><p:txBody>{body}</p:txBody></p:sp>") == "plain\n\n- dot\n    - deep\n1. a\n2. b"


def test_slide_numbers_and_footers_are_left_out(read: Callable[..., str]) -> None:
    line = '<a:p><a:r><a:t>Page </a:t></a:r><a:fld type="slidenum"><a:t>7</a:t></a:fld></a:p>'
    number = f"<p:sp><p:txBody>{line}</p:txBody></p:sp>"
    assert read(slide_text("x") + slide_text("footer", kind="ftr") + number) == "x\n\nPage"


def test_a_table_is_a_table_and_merged_cells_repeat(read: Callable[..., str]) -> None:
    def cell(text: str, attributes: str = "") -> str:
        return f"<a:tc {attributes}><a:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></a:txBody></a:tc>"

    merged = cell("wide", 'gridSpan="2"') + cell("", 'hMerge="1"')
    table = f'<a:tbl><a:tblPr firstRow="1"/><a:tr>{merged}</a:tr><a:tr>{cell("1")}{cell("2")}</a:tr></a:tbl>'
    assert read(f"<p:graphicFrame>{table}</p:graphicFrame>") == "| wide | wide |\n| --- | --- |\n| 1 | 2 |"


def test_shapes_in_groups_and_alternatives_are_read_once(read: Callable[..., str]) -> None:
    group = f"<p:grpSp>{slide_text('inner')}</p:grpSp>"
    choice = f"<Choice>{slide_text('new')}</Choice><Fallback>{slide_text('old')}</Fallback>"
    assert read(f"{group}<AlternateContent>{choice}</AlternateContent>") == "inner\n\nnew"


def test_notes_and_comments_stand_after_their_slide(source: MakeSource) -> None:
    shapes = f"<p:cSld><p:spTree>{slide_text('Say it.', kind='body')}</p:spTree></p:cSld>"
    notes = f'<p:notes xmlns:p="urn:p" xmlns:a="urn:a">{shapes}</p:notes>'
    extra = {
        "ppt/slides/_rels/slide1.xml.rels": relations({"n": ("notesSlide", "../n.xml"), "c": ("comments", "../c.xml")}),
        "ppt/n.xml": notes,
        "ppt/c.xml": '<cmLst><cm authorId="0" dt="2026-01-02T03:04:05.678"><text>Why?</text></cm></cmLst>',
        "ppt/_rels/presentation.xml.rels": relations(
            {"s1": ("slide", "slides/slide1.xml"), "a": ("commentAuthors", "a.xml")}
        ),
        "ppt/a.xml": '<cmAuthorLst><cmAuthor id="0" name="Ann"/></cmAuthorLst>',
    }
    (document,) = read_slides(source("t.pptx", write_pptx([slide_text("Slide.")], extra)))
    assert document.text == "Slide.\n\n> Notes: Say it.\n\n> Comment by Ann, 2026-01-02T03:04:05: Why?"


def test_a_hidden_slide_is_counted_and_not_read(source: MakeSource) -> None:
    hidden = '<p:sld xmlns:p="urn:p" show="0"><p:cSld/></p:sld>'
    data = write_pptx([slide_text("Seen."), slide_text("x")], {"ppt/slides/slide2.xml": hidden})
    (document,) = read_slides(source("t.pptx", data))
    assert document.text == "Seen." and document.tags["slides.hidden"] == "1"


@pytest.mark.parametrize("data", [b"PK torn", write_zip({"other.xml": "<a/>"})])
def test_what_is_no_presentation_is_refused(source: MakeSource, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a readable PPTX"):
        list(read_slides(source("t.pptx", data)))
