"""reStructuredText: its section titles as Markdown headings, code blocks fenced, grid and simple tables as Markdown.

Everything else stays as it is written. Nothing is included or run: directives are text. Levels follow the order in
which the styles of underlining appear, as docutils has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from espalier.core.types import Document
from espalier.data.readers.blocks import Code, Heading, Table, write_block
from espalier.data.readers.plain import decode
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile

_ADORNED = re.compile(r"([!-/:-@\[-`{-~])\1+\s*")
_CODE = re.compile(r"(\s*)\.\. (?:code|code-block|sourcecode|highlight)::\s*([\w+#-]*)\s*")
_OPTION = re.compile(r"\s*:[\w-]+:.*")
_GRID = re.compile(r"\s*\+(?:[-=]+\+)+\s*")
MAX_TABLE_LINES = 1_000
_SIMPLE = re.compile(r"\s*={2,}(?: +={2,})+\s*")


@versioned(1)
def read_rst(source: SourceFile) -> Iterator[Document]:
    """One document: the whole file."""
    text = write_markdown(decode(source.read_bytes()))
    if text.strip():
        yield Document(source.document_id(1), text, source.span(end=len(text)))


def write_markdown(text: str) -> str:
    """The text with Markdown for titles, code and tables."""
    lines = text.replace("\r\n", "\n").expandtabs(4).split("\n")
    styles: list[tuple[str, bool]] = []
    out: list[str] = []
    at = 0
    while at < len(lines):
        end, written = _read_part(lines, at, styles)
        out.append(written)
        at = end
    return "\n".join(out)


def _read_part(lines: list[str], at: int, styles: list[tuple[str, bool]]) -> tuple[int, str]:
    """Where the part that begins at a line ends, and how it is written."""
    line = lines[at]
    following = lines[at + 1] if at + 1 < len(lines) else ""
    if _GRID.fullmatch(line):
        return _read_grid(lines, at)
    if _SIMPLE.fullmatch(line):
        return _read_simple(lines, at)
    code = _CODE.fullmatch(line)
    if code:
        return _read_code(lines, at, len(code[1]), code[2])
    over = _ADORNED.fullmatch(line)
    if over and following.strip() and at + 2 < len(lines) and lines[at + 2].rstrip() == line.rstrip():
        return at + 3, _write_title(following, line[0], True, styles)
    under = _ADORNED.fullmatch(following)
    if line.strip() and not line[0].isspace() and not over and under and len(following.rstrip()) >= len(line.rstrip()):
        return at + 2, _write_title(line, following[0], False, styles)
    return at + 1, line


def _write_title(title: str, sign: str, over: bool, styles: list[tuple[str, bool]]) -> str:
    if (sign, over) not in styles:
        styles.append((sign, over))
    return write_block(Heading(title, styles.index((sign, over)) + 1))


def _read_code(lines: list[str], at: int, indent: int, language: str) -> tuple[int, str]:
    end = at + 1
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
        end += 1
    body = lines[at + 1 : end]
    while body and (_OPTION.fullmatch(body[0]) or not body[0].strip()):
        body.pop(0)
    margin = min((len(line) - len(line.lstrip()) for line in body if line.strip()), default=0)
    fenced = write_block(Code("\n".join(line[margin:] for line in body).rstrip(), language))
    return end, f"{fenced}\n" if fenced else lines[at]


def _read_grid(lines: list[str], at: int) -> tuple[int, str]:
    """A grid table whose columns are the same in every row; one with spans stays as it is."""
    end = at
    while end < len(lines) and lines[end].strip()[:1] in ("+", "|"):
        end += 1
    block = [line.strip() for line in lines[at:end]]
    edges = [index for index, sign in enumerate(block[0]) if sign == "+"]
    rows: list[list[list[str]]] = []
    for line in block:
        if line.startswith("+"):
            rows.append([[] for _ in edges[1:]])
            continue
        if any(index >= len(line) or line[index] != "|" for index in edges):
            return end, "\n".join(lines[at:end])
        for cell, left, right in zip(rows[-1], edges, edges[1:], strict=False):
            cell.append(line[left + 1 : right].strip())
    return end, write_block(Table(tuple(tuple(" ".join(cell) for cell in row) for row in rows)))


def _read_simple(lines: list[str], at: int) -> tuple[int, str]:
    """A simple table: columns under runs of `=`; it ends with the second or third such line."""
    starts = [match.start() for match in re.finditer(r"=+", lines[at])]
    rules: list[int] = []
    for index in range(at + 1, min(at + MAX_TABLE_LINES, len(lines))):
        if not lines[index].strip() or len(rules) > 1:
            break
        if _SIMPLE.fullmatch(lines[index]):
            rules.append(index)
    if not rules:
        return at + 1, lines[at]
    end = rules[min(1, len(rules) - 1)]
    rows: list[list[str]] = []
    for index in range(at + 1, end):
        line = lines[index]
        if _SIMPLE.fullmatch(line) or re.fullmatch(r"[-\s]+", line):
            continue
        cells = [line[start:stop].strip() for start, stop in zip(starts, [*starts[1:], None], strict=True)]
        if rows and not cells[0]:
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    return end + 1, write_block(Table(tuple(map(tuple, rows))))
