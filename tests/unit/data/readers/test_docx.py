from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.readers.container import Limits
from espalier.data.readers.docx import read_docx
from espalier.data.readers.source import SourceFile
from espalier.data.synth.tickets.docx import Table, Text, write_docx

MakeSource = Callable[[str, bytes], SourceFile]
Pack = Callable[[Mapping[str, str]], bytes]

W = 'xmlns:w="urn:w" xmlns:m="urn:m" xmlns:mc="urn:mc" xmlns:r="urn:r" xmlns:c="urn:c"'
RELATION = '<Relationship Id="{}" Type="urn:x/{}" Target="{}"/>'


def p(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def document(body: str, **parts: str) -> dict[str, str]:
    """A package of a body and further parts by relation kind."""
    members = {"word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>"}
    links = "".join(RELATION.format(f"r{kind}", kind, f"{kind}.xml") for kind in parts)
    members["word/_rels/document.xml.rels"] = f"<Relationships>{links}</Relationships>"
    return members | {f"word/{kind}.xml": f"<w:{kind} {W}>{content}</w:{kind}>" for kind, content in parts.items()}


@pytest.fixture
def read(source: MakeSource, pack: Pack) -> Callable[..., str]:
    def text_of(body: str, **parts: str) -> str:
        (found,) = read_docx(source("t.docx", pack(document(body, **parts))))
        return found.text

    return text_of


def test_headings_forms_and_paragraphs_come_in_order_and_the_footer_is_a_tag(source: MakeSource) -> None:
    blocks = [Text("Title", "Heading1"), Table((("Ticket", "A-1"), ("Product", "Scope 5"))), Text("The end.")]
    (found,) = read_docx(source("t.docx", write_docx(blocks, "footer")))
    assert found.text == "# Title\n\nTicket: A-1\nProduct: Scope 5\n\nThe end."
    assert found.tags == {"docx.footer": "footer"}


def test_a_wide_table_is_a_markdown_table(source: MakeSource) -> None:
    (found,) = read_docx(source("t.docx", write_docx([Table((("a", "b", "c"), ("1", "2", "3")))])))
    assert found.text == "| a | b | c |\n| --- | --- | --- |\n| 1 | 2 | 3 |"


def test_two_columns_under_a_header_row_are_a_table_and_no_form(read: Callable[..., str]) -> None:
    def row(*cells: str, header: str = "") -> str:
        return f"<w:tr>{header}{''.join(f'<w:tc>{p(cell)}</w:tc>' for cell in cells)}</w:tr>"

    head = row("Name", "Age", header="<w:trPr><w:tblHeader/></w:trPr>")
    assert read(f"<w:tbl>{head}{row('Ann', '3')}</w:tbl>") == "| Name | Age |\n| --- | --- |\n| Ann | 3 |"
    look = '<w:tblPr><w:tblLook w:val="04A0"/></w:tblPr>'
    assert read(f"<w:tbl>{look}{row('Name', 'Age')}{row('Ann', '3')}</w:tbl>").startswith("| Name | Age |")


def test_a_merged_cell_is_repeated_where_it_reaches(read: Callable[..., str]) -> None:
    wide = f'<w:tc><w:tcPr><w:gridSpan w:val="2"/></w:tcPr>{p("wide")}</w:tc>'
    tall = f'<w:tc><w:tcPr><w:vMerge w:val="restart"/></w:tcPr>{p("tall")}</w:tc>'
    rest = f"<w:tc><w:tcPr><w:vMerge/></w:tcPr>{p('')}</w:tc>"
    cell = f"<w:tc>{p('x')}</w:tc>"
    table = f"<w:tbl><w:tr>{tall}{wide}</w:tr><w:tr>{rest}{cell}{cell}</w:tr></w:tbl>"
    assert read(table) == "| tall | wide | wide |\n| --- | --- | --- |\n| tall | x | x |"


NUMBERING = """
<w:abstractNum w:abstractNumId="0">
 <w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="%1."/></w:lvl>
 <w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="%1.%2"/></w:lvl>
</w:abstractNum>
<w:abstractNum w:abstractNumId="1">
 <w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/></w:lvl><w:lvl w:ilvl="1"><w:numFmt w:val="bullet"/></w:lvl>
</w:abstractNum>
<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>
<w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>
<w:num w:numId="3"><w:abstractNumId w:val="0"/>
 <w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride></w:num>
"""


def number(num_id: int, level: int = 0) -> str:
    return f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{num_id}"/></w:numPr>'


def test_lists_keep_their_numbers_bullets_and_depth(read: Callable[..., str]) -> None:
    body = p("a", number(1)) + p("b", number(1)) + p("b1", number(1, 1)) + p("c", number(1))
    body += p("x", number(2)) + p("y", number(2, 1)) + p("again", number(3)) + p("none", number(0))
    expected = "1. a\n2. b\n    - 2.1 b1\n3. c\n- x\n    - y\n7. again\n\nnone"
    assert read(body, numbering=NUMBERING) == expected


def test_a_heading_may_get_its_level_from_a_style_it_is_based_on_and_its_number_from_a_list(
    read: Callable[..., str],
) -> None:
    styles = """<w:style w:styleId="H2"><w:name w:val="heading 2"/></w:style>
    <w:style w:styleId="Mine"><w:name w:val="Mine"/><w:basedOn w:val="H2"/></w:style>
    <w:style w:styleId="Loop"><w:name w:val="Loop"/><w:basedOn w:val="Loop"/></w:style>"""
    body = p("One", f'<w:pStyle w:val="Mine"/>{number(1)}') + p("plain", '<w:pStyle w:val="Loop"/>')
    body += p("Outlined", '<w:outlineLvl w:val="0"/>')
    assert read(body, styles=styles, numbering=NUMBERING) == "## 1 One\n\nplain\n\n# Outlined"


def test_lines_in_a_code_style_are_one_block_of_code(read: Callable[..., str]) -> None:
    styles = '<w:style w:styleId="C"><w:name w:val="Source Code"/></w:style>'
    code = '<w:pStyle w:val="C"/>'
    assert read(p("if a:", code) + p("  b()", code) + p("end"), styles=styles) == "```\nif a:\n  b()\n```\n\nend"


def test_footnotes_and_comments_stand_at_the_end(read: Callable[..., str]) -> None:
    body = '<w:p><w:r><w:t>Said.</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
    notes = (
        f'<w:footnote w:type="separator" w:id="0">{p("-")}</w:footnote><w:footnote w:id="2">{p("Source.")}</w:footnote>'
    )
    comments = f'<w:comment w:id="1" w:author="Ann">{p("Really?")}</w:comment>'
    expected = "Said.[^2]\n\n[^2]: Source.\n\n> Comment by Ann: Really?"
    assert read(body, footnotes=notes, comments=comments) == expected


def test_deleted_text_is_left_out_and_inserted_text_is_kept(read: Callable[..., str]) -> None:
    body = "<w:p><w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:ins><w:r><w:t>new</w:t></w:r></w:ins></w:p>"
    assert read(body) == "new"


def test_a_text_box_is_read_once_though_word_writes_it_twice(read: Callable[..., str]) -> None:
    box = f"<w:txbxContent>{p('boxed')}</w:txbxContent>"
    twice = f"<mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent>"
    assert read(f"<w:p><w:r><w:t>A</w:t>{twice}</w:r></w:p>") == "A\n\nboxed"


def run(text: str) -> str:
    return f"<m:r><m:t>{text}</m:t></m:r>"


FRACTION = f"<m:f><m:num>{run('a')}</m:num><m:den>{run('β')}</m:den></m:f>"


@pytest.mark.parametrize(
    ("math", "latex"),
    [
        (FRACTION, r"\frac{a}{\beta}"),
        (f"<m:sSup><m:e>{FRACTION}</m:e><m:sup>{run('2')}</m:sup></m:sSup>", r"{\frac{a}{\beta}}^{2}"),
        (f"<m:rad><m:deg/><m:e>{run('x')}</m:e></m:rad>", r"\sqrt{x}"),
        (f"<m:d><m:e>{run('x')}</m:e></m:d>", r"\left(x\right)"),
        (f"<m:func><m:fName>{run('log')}</m:fName><m:e>{run('x')}</m:e></m:func>", r"\log x"),
        (
            f'<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub>{run("i=0")}</m:sub><m:sup>{run("n")}</m:sup>'
            f"<m:e>{run('i')}</m:e></m:nary>",
            r"\sum_{i=0}^{n}i",
        ),
        (
            f"<m:m><m:mr><m:e>{run('1')}</m:e><m:e>{run('2')}</m:e></m:mr></m:m>",
            r"\begin{matrix}1 & 2\end{matrix}",
        ),
        (run("αx ≤ 𝑦"), r"\alpha x \leq y"),
    ],
)
def test_a_formula_is_latex(read: Callable[..., str], math: str, latex: str) -> None:
    assert read(f"<w:p><m:oMath>{math}</m:oMath></w:p>") == f"$${latex}$$"
    assert read(f"<w:p><w:r><w:t>so </w:t></w:r><m:oMath>{math}</m:oMath></w:p>") == f"so ${latex}$"


def test_a_chart_is_a_table_of_its_values(source: MakeSource, pack: Pack) -> None:
    def points(name: str, *values: str) -> str:
        each = "".join(f'<c:pt idx="{i}"><c:v>{value}</c:v></c:pt>' for i, value in enumerate(values))
        return f"<c:{name}><c:cache>{each}</c:cache></c:{name}>"

    columns = [points("tx", "Ducks"), points("cat", "May", "June"), points("val", "4.4000000000000004", "2")]
    series = f"<c:ser>{''.join(columns)}</c:ser>"
    members = document(
        '<w:p><w:r><w:drawing><w:graphicData><c:chart r:id="rchart"/></w:graphicData></w:drawing></w:r></w:p>'
    )
    members["word/_rels/document.xml.rels"] = f"<R>{RELATION.format('rchart', 'chart', '/word/c.xml')}</R>"
    members["word/c.xml"] = f'<c:chartSpace xmlns:c="urn:c"><c:title><c:t>Seen</c:t></c:title>{series}</c:chartSpace>'
    (found,) = read_docx(source("t.docx", pack(members)))
    assert found.text == "Chart: Seen\n\n|  | Ducks |\n| --- | --- |\n| May | 4.4 |\n| June | 2 |"


# What is refused


@pytest.mark.parametrize("data", [b"PK broken", b"plain text"])
def test_a_corrupt_docx_is_refused(source: MakeSource, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a readable DOCX"):
        list(read_docx(source("t.docx", data)))


def test_a_zip_that_is_no_docx_is_refused(source: MakeSource, pack: Pack) -> None:
    with pytest.raises(InvalidInput, match=r"word/document\.xml"):
        list(read_docx(source("t.docx", pack({"other.xml": "<a/>"}))))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(member_bytes=1000), "unpacks to more than 1000 bytes"),
        (Limits(total_bytes=1000), "more than 1000 bytes in all"),
        (Limits(free_bytes=1000, ratio=10), "more than 10 times its size"),
        (Limits(members=0), "1 members, more than 0"),
    ],
)
def test_a_zip_bomb_is_refused_without_unpacking_it(
    source: MakeSource, pack: Pack, monkeypatch: pytest.MonkeyPatch, limits: Limits, reason: str
) -> None:
    monkeypatch.setattr("espalier.data.readers.container.LIMITS", limits)
    with pytest.raises(InvalidInput, match=reason):
        list(read_docx(source("t.docx", pack({"word/document.xml": " " * 1_000_000}))))


@pytest.mark.parametrize(
    "entity",
    [
        '<!ENTITY x SYSTEM "file:///etc/hostname">',
        '<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY x "&b;&b;&b;&b;">',
    ],
)
def test_an_entity_is_not_expanded(source: MakeSource, pack: Pack, entity: str) -> None:
    members = document(p("safe &x;"))
    members["word/document.xml"] = f"<!DOCTYPE d [{entity}]>" + members["word/document.xml"]
    (found,) = read_docx(source("t.docx", pack(members)))
    assert found.text == "safe"


def test_elements_nested_deeper_than_a_parser_should_go_are_refused(source: MakeSource, pack: Pack) -> None:
    body = "<w:sdt>" * 5_000 + "</w:sdt>" * 5_000
    with pytest.raises(InvalidInput, match="not a readable DOCX"):
        list(read_docx(source("t.docx", pack(document(body)))))
