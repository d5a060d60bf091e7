from __future__ import annotations

from collections.abc import Callable

import pytest

from espalier.data.readers.reading import read_file
from espalier.data.readers.source import SourceFile
from espalier.data.readers.web import decode_html, read_html

MakeSource = Callable[[str, bytes], SourceFile]


@pytest.fixture
def read(source: MakeSource) -> Callable[[str], str]:
    def text_of(page: str) -> str:
        (found,) = read_html(source("t.html", page.encode()))
        return found.text

    return text_of


def test_html_gives_the_main_element_with_its_form_and_no_navigation(source: MakeSource) -> None:
    page = """<html lang="en"><head><title>T &amp; more</title><script>var x = 1;</script></head><body>
    <nav>Home</nav><main><h1>Ticket A-1</h1><table><tr><th>Product:</th><td>Scope <b>5</b></td></tr></table>
    <p>It is <i>bro</i>ken.<br>Please help.</p></main><footer>Imprint</footer></body></html>"""
    (document,) = read_html(source("t.html", page.encode()))
    assert document.text == "# Ticket A-1\n\nProduct: Scope 5\n\nIt is broken.\nPlease help."
    assert document.tags == {"html.title": "T & more", "html.language": "en"}


def test_a_page_says_whether_and_under_which_licence_it_may_be_used(source: MakeSource) -> None:
    page = """<head><meta name="robots" content="NoIndex"><meta name="ROBOTS" content="noai, noimageai"></head>
    <p>Text <a rel="license noopener" href="https://creativecommons.org/licenses/by/4.0/">CC BY</a></p>"""
    (document,) = read_html(source("t.html", page.encode()))
    assert document.tags["robots"] == "noindex, noai, noimageai"
    assert document.tags["licence"] == "https://creativecommons.org/licenses/by/4.0/"


def test_html_without_a_main_element_still_gives_its_text(read: Callable[[str], str]) -> None:
    page = "<body><div>Dear team,</div><div>the pump is broken since Monday and nobody came.</div></body>"
    assert read(page) == "Dear team,\n\nthe pump is broken since Monday and nobody came."


def test_lists_nest_and_count(read: Callable[[str], str]) -> None:
    page = """<ul><li>a<ul><li>b</li></ul></li><li><p>c</p><p>more</p></li></ul><ol start="4"><li>d<li>e</ol>
    <dl><dt>term<dd>meaning</dl>"""
    assert read(page) == "- a\n    - b\n- c\n  more\n4. d\n5. e\n- term\n    - meaning"


def test_a_table_keeps_its_columns_and_repeats_what_spans(read: Callable[[str], str]) -> None:
    page = """<table><thead><tr><th>H</th><th colspan=2>wide</th></tr></thead>
    <tbody><tr><td rowspan=2>tall</td><td>1<td>2</tr><tr><td>3<td>4|5</tr></tbody></table>"""
    expected = "| H | wide | wide |\n| --- | --- | --- |\n| tall | 1 | 2 |\n| tall | 3 | 4\\|5 |"
    assert read(page) == expected


def test_a_table_that_arranges_the_page_is_read_as_text(read: Callable[[str], str]) -> None:
    page = "<table role=presentation><tr><td><h2>Left</h2></td><td><p>Right</p></td></tr></table>"
    assert read(page) == "## Left\n\nRight"
    assert read("<table><tr><td><p>One</p><p>Two</p></td></tr></table>") == "One\n\nTwo"


def test_code_and_formulas_and_quotes_keep_their_form(read: Callable[[str], str]) -> None:
    page = """<pre><code class="language-python">if a:\n    b()</code></pre><p>Use <code>b()</code>.</p>
    <blockquote>said</blockquote>
    <p><math><mi>x</mi><annotation encoding="application/x-tex">x^2</annotation></math></p>"""
    assert read(page) == "```python\nif a:\n    b()\n```\n\nUse `b()`.\n\n> said\n\n$x^2$"


def test_what_is_hidden_is_not_read(read: Callable[[str], str]) -> None:
    assert read("<p>seen</p><p hidden>no</p><div style='display: none'><p>no</p></div><p>end</p>") == "seen\n\nend"


def test_of_a_long_page_the_main_content_is_kept_with_its_table(read: Callable[[str], str]) -> None:
    story = "".join(
        f"<p>Sentence {i} of the story goes on about the pump, its motor and the water.</p>" for i in range(40)
    )
    links = "".join(f'<li><a href="/{i}">Link number {i}</a></li>' for i in range(30))
    table = "<table><tr><th>Part</th><th>Price</th></tr><tr><td>Motor</td><td>12</td></tr></table>"
    text = read(f"<body><div class='menu'><ul>{links}</ul></div><div><h2>Pumps</h2>{story}{table}</div></body>")
    assert "Link number 7" not in text
    assert "## Pumps" in text and "Sentence 39" in text
    assert "| Part | Price |\n| --- | --- |\n| Motor | 12 |" in text


@pytest.mark.parametrize("charset", ["iso-8859-15", "shift_jis", "windows-1251"])
def test_the_declared_charset_is_believed_when_it_is_true(charset: str) -> None:
    text = {"iso-8859-15": "5 €", "shift_jis": "日本語", "windows-1251": "Привет"}[charset]
    assert text in decode_html(f'<meta charset="{charset}"><p>{text}</p>'.encode(charset))
    assert text in decode_html(f'<meta charset="ascii"><p>{text}</p>'.encode())


@pytest.mark.parametrize("tag", ["div", "table><tr><td", "ul><li", "blockquote", "span"])
def test_deeply_nested_html_is_read_or_refused_but_never_crashes(source: MakeSource, tag: str) -> None:
    page = f"<{tag}>" * 50_000 + "deep"
    documents, reason = read_file(source("t.html", page.encode()))
    assert documents or reason.startswith("unreadable: ")
