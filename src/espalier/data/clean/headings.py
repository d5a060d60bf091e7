"""The sections of a Markdown or reStructuredText document, each with the path of headings over it.

Markdown: https://spec.commonmark.org/0.31.2/#atx-headings and setext; reStructuredText:
https://docutils.sourceforge.io/docs/ref/rst/restructuredtext.html#sections. Knows nothing else of either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*\Z")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*\Z")
_RULE = re.compile(r"([!-/:-@\[-`{-~])\1*[ \t]*\Z")
_BLOCK = re.compile(r" {0,3}(?:[-*+>|#]|\d{1,9}[.)])|    |\t|\s*\Z")  # a line that begins no paragraph

Heading = tuple[int, int, str]  # offset, level from 1, title


def find_sections(text: str, form: str) -> list[tuple[int, int, str]]:
    """Start, end and heading path ("Title > Section") of each section, in order; together they are the whole text.

    form: `md` for Markdown, or anything else for whichever of the two finds more headings (readers of other formats
    may write either). What stands before the first heading is a section without a path.
    """
    headings = list(_find_markdown(text))
    if form != "md":
        headings = max(list(_find_rst(text)), headings, key=len)
    out: list[tuple[int, int, str]] = []
    if not headings or headings[0][0] > 0:
        out.append((0, headings[0][0] if headings else len(text), ""))
    path: list[tuple[int, str]] = []
    ends = [start for start, _, _ in headings[1:]] + [len(text)]
    for (start, level, title), end in zip(headings, ends, strict=False):
        path = [item for item in path if item[0] < level] + [(level, title)]
        out.append((start, end, " > ".join(name for _, name in path if name)))
    return out


def _find_markdown(text: str) -> Iterator[Heading]:
    fence, offset = "", 0
    before, before_at = "", 0  # the line above, when a paragraph of one line may end with it
    for line in text.splitlines(keepends=True):
        body = line.rstrip("\r\n")
        mark = _FENCE.match(body)
        if fence:
            if mark and mark[1].startswith(fence) and not body.strip(" `~"):
                fence = ""
            before = ""
        elif mark:
            fence, before = mark[1], ""
        elif found := _ATX.match(body):
            yield offset, len(found[1]), (found[2] or "").strip()
            before = ""
        elif before and (under := _SETEXT.match(body)):
            yield before_at, 1 if under[1][0] == "=" else 2, before.strip()
            before = ""
        elif _BLOCK.match(body):
            before = ""
        else:
            before, before_at = body, offset
        offset += len(line)


def _find_rst(text: str) -> Iterator[Heading]:
    """Levels are numbered in the order their marks first occur; over- and underlined is another than underlined."""
    levels: list[str] = []
    offset, lines = 0, [line.rstrip("\r\n") for line in text.splitlines(keepends=True)]
    starts = []
    for line in text.splitlines(keepends=True):
        starts.append(offset)
        offset += len(line)
    for at in range(1, len(lines)):
        under, title = _RULE.match(lines[at]), lines[at - 1]
        if not under or not title.strip() or _RULE.match(title) or len(lines[at].rstrip()) < max(3, len(title.strip())):
            continue
        over = at > 1 and lines[at - 2].rstrip() == lines[at].rstrip()
        if not over and (title[0].isspace() or (at > 1 and lines[at - 2].strip())):
            continue  # a block quote, or a table's rule under the last line of a row
        mark = under[1] * (2 if over else 1)
        if mark not in levels:
            levels.append(mark)
        yield starts[at - 2 if over else at - 1], levels.index(mark) + 1, title.strip()
