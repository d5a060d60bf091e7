"""Markdown as it is, but for what is not Markdown in it: front matter becomes tags, HTML tables become Markdown ones.

Knows where code is fenced and leaves it alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from espalier.core.types import Document
from espalier.data.readers.blocks import write_block
from espalier.data.readers.plain import decode
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile

MAX_TAG_CHARS = 200
_FRONT = re.compile(r"\A---[ \t]*\n((?:[^\n]*\n){1,100}?)(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_FIELD = re.compile(r"^([A-Za-z][\w-]{0,40}):[ \t]+([^\n|>&*\[{][^\n]*)$", re.MULTILINE)
_KEPT = {"title": "title", "license": "licence", "licence": "licence", "lang": "language", "language": "language"}
_FENCED = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)[^\n]*$", re.MULTILINE | re.DOTALL)
_TABLE_END = re.compile(r"</table\s*>", re.IGNORECASE)
_TABLE_START = re.compile(r"<table\b", re.IGNORECASE)


@versioned(2)
def read_markdown(source: SourceFile) -> Iterator[Document]:
    """One document: the whole file."""
    text, tags = split_front_matter(decode(source.read_bytes()))
    if "<table" in text.lower():
        text = rewrite_tables(text)
    if text.strip():
        yield Document(source.document_id(1), text, source.span(end=len(text)), tags)


def split_front_matter(text: str) -> tuple[str, dict[str, str]]:
    """The text without its YAML front matter, and of that the title, licence and language."""
    front = _FRONT.match(text)
    if front is None or not _FIELD.search(front[1]):
        return text, {}
    tags = {}
    for field in _FIELD.finditer(front[1]):
        name, value = _KEPT.get(field[1].lower()), field[2].strip().strip("\"'")
        if name and value:
            tags[name] = value[:MAX_TAG_CHARS]
    return text[front.end() :], tags


def rewrite_tables(text: str) -> str:
    """HTML tables outside fenced code as Markdown tables."""
    parts, last = [], 0
    for fence in _FENCED.finditer(text):
        parts += [_rewrite(text[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join([*parts, _rewrite(text[last:])])


def _rewrite(text: str) -> str:
    parts, last = [], 0
    for end in _TABLE_END.finditer(text):
        starts = list(_TABLE_START.finditer(text, last, end.start()))
        if len(starts) == 1:  # tables in tables arrange the page
            parts += [text[last : starts[0].start()], _write_table(text[starts[0].start() : end.end()])]
        else:
            parts.append(text[last : end.end()])
        last = end.end()
    return "".join([*parts, text[last:]])


def _write_table(markup: str) -> str:
    from espalier.data.readers.htmlblocks import read_table
    from espalier.data.readers.web import parse_html

    tables = parse_html(markup).xpath("//table")
    written = write_block(read_table(tables[0])) if tables else ""
    return f"\n{written}\n" if written else markup
