"""Formats that are text already: Markdown, reStructuredText, notebooks, source code, RTF."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.readers.code import LANGUAGES, read_code
from espalier.data.readers.markdown import read_markdown
from espalier.data.readers.notebook import read_notebook
from espalier.data.readers.rst import write_markdown
from espalier.data.readers.rtf import read_rtf, strip_rtf
from espalier.data.readers.source import SourceFile
from espalier.testing.files import write_notebook

MakeSource = Callable[[str, bytes], SourceFile]

# Markdown


def test_markdown_stays_as_it_is(source: MakeSource) -> None:
    text = "# T\n\n- a\n\n```html\n<table><tr><td>x<td>y</table>\n```\n\n---\n"
    (document,) = read_markdown(source("t.md", text.encode()))
    assert document.text == text and document.tags == {}


def test_front_matter_becomes_tags(source: MakeSource) -> None:
    (document,) = read_markdown(source("t.md", b"---\ntitle: 'My page'\nlicense: MIT\nx: [1, 2]\n---\nText.\n"))
    assert document.text == "Text.\n" and document.tags == {"title": "My page", "licence": "MIT"}


def test_an_html_table_in_markdown_becomes_a_markdown_table(source: MakeSource) -> None:
    page = "Before.\n<table><tr><th>a<th>b</tr><tr><td>1<td>2</tr></table>\nAfter.\n"
    (document,) = read_markdown(source("t.md", page.encode()))
    assert "\n| a | b |\n| --- | --- |\n| 1 | 2 |\n" in document.text


# reStructuredText


def test_titles_get_their_level_by_the_order_of_their_styles() -> None:
    text = "=====\nTitle\n=====\n\nOne\n---\n\nTwo\n~~~\n\nThree\n-----\ntext\n"
    assert write_markdown(text) == "# Title\n\n## One\n\n### Two\n\n## Three\ntext\n"


def test_code_blocks_are_fenced() -> None:
    text = "Use it:\n\n.. code-block:: python\n   :linenos:\n\n   if a:\n       b()\n\nDone.\n"
    assert write_markdown(text) == "Use it:\n\n```python\nif a:\n    b()\n```\n\nDone.\n"


def test_grid_tables_become_markdown_tables_but_for_those_with_spans() -> None:
    grid = "+---+-----+\n| a | b   |\n+===+=====+\n| 1 | two |\n|   | 2   |\n+---+-----+\n"
    assert write_markdown(grid) == "| a | b |\n| --- | --- |\n| 1 | two 2 |\n"
    spans = "+---+---+\n| both  |\n+---+---+\n| 1 | 2 |\n+---+---+\n"
    assert write_markdown(spans) == spans


def test_simple_tables_become_markdown_tables() -> None:
    table = "===  =====\na    b\n===  =====\n1    two\n     lines\n2    x\n===  =====\n\nAfter.\n"
    assert write_markdown(table) == "| a | b |\n| --- | --- |\n| 1 | two lines |\n| 2 | x |\n\nAfter.\n"


def test_a_rule_and_a_directive_stay() -> None:
    text = "Text.\n\n----\n\n.. include:: /etc/passwd\n\nMore.\n"
    assert write_markdown(text) == text


# Notebooks


def test_a_notebook_is_its_markdown_its_code_and_its_text_outputs(source: MakeSource) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# T\n", "text"]},
        {
            "cell_type": "code",
            "source": "print(1)",
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "execute_result", "data": {"text/plain": "2", "image/png": "AAAA"}},
                {"output_type": "error", "ename": "ValueError", "evalue": "bad \x1b[31mred\x1b[0m"},
            ],
        },
        {"cell_type": "raw", "source": "left out"},
    ]
    (document,) = read_notebook(source("t.ipynb", write_notebook(cells)))
    outputs = "```output\n1\n```\n\n```output\n2\n```\n\n```output\nValueError: bad red\n```"
    assert document.text == f"# T\ntext\n\n```python\nprint(1)\n```\n\n{outputs}"
    assert document.tags == {"code_language": "python"}


def test_a_notebook_of_format_3_is_read(source: MakeSource) -> None:
    cells = [{"cell_type": "heading", "level": 2, "source": "H"}, {"cell_type": "code", "input": "x", "outputs": []}]
    data = json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}).encode()
    (document,) = read_notebook(source("t.ipynb", data))
    assert document.text == "## H\n\n```\nx\n```"


@pytest.mark.parametrize("data", [b"{", b"[]", b"[" * 100_000])
def test_what_is_no_notebook_is_refused(source: MakeSource, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a readable notebook"):
        list(read_notebook(source("t.ipynb", data)))


@pytest.mark.parametrize(
    "cells", [[1, None, "x"], [{"cell_type": "code", "source": 5, "outputs": {"a": 1}}], "no list"]
)
def test_odd_cells_are_passed_over(source: MakeSource, cells: object) -> None:
    assert list(read_notebook(source("t.ipynb", json.dumps({"cells": cells}).encode()))) == []


# Source code


def test_code_is_left_alone_and_tagged_with_its_language_and_licence(source: MakeSource) -> None:
    text = "# SPDX-License-Identifier: Apache-2.0\nif a:\n\tb()  \n"
    (document,) = read_code(source("t.py", text.encode()))
    assert document.text == text
    assert document.tags == {"code_language": "python", "licence": "Apache-2.0"}


def test_a_licence_in_a_block_comment_ends_with_the_comment(source: MakeSource) -> None:
    (document,) = read_code(source("t.c", b"/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */\nint x;\n"))
    assert document.tags["licence"] == "GPL-2.0 WITH Linux-syscall-note"


def test_xml_is_read_in_the_encoding_it_declares(source: MakeSource) -> None:
    data = '<?xml version="1.0" encoding="iso-8859-5"?><a>Привет</a>'.encode("iso-8859-5")
    (document,) = read_code(source("t.xml", data))
    assert "Привет" in document.text and document.tags["code_language"] == "xml"


def test_languages_are_named_in_lower_case_and_once_a_suffix() -> None:
    assert all(suffix == suffix.lower() and name == name.lower() for suffix, name in LANGUAGES.items())


# RTF


def test_rtf_gives_its_text_in_its_code_page(source: MakeSource) -> None:
    data = rb"{\rtf1\ansi\ansicpg1251{\fonttbl\f0 Arial;}\f0 \'cf\'f0\'e8\'e2\'e5\'f2 {\b world}\par Next \u8364?5\par}"
    (document,) = read_rtf(source("t.rtf", data))
    assert document.text == "Привет world\nNext €5"


def test_a_table_in_rtf_is_a_table() -> None:
    data = rb"{\rtf1\ansi Before\par\trowd\cellx1\cellx2 a\cell b\cell\row"
    data += rb"\trowd\cellx1\cellx2 1\cell 2\cell\row\pard After}"
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |" in strip_rtf(data)


def test_what_is_no_rtf_is_refused(source: MakeSource) -> None:
    with pytest.raises(InvalidInput, match="not a readable RTF"):
        list(read_rtf(source("t.rtf", b"plain")))
