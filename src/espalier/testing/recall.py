"""How much of a document a reader found, measured against the Markdown somebody expected of it.

Word recall is over multisets: of the words of the expected text, each counted as often as it occurs, the share that
the reader's text has too. Words are runs of letters and digits (an ideograph or a kana is a word), folded by NFKC and
case; markup is stripped from both sides. Order is not measured.

Cell recall is the share of the expected cells (of tables with two columns or more, empty ones left out) whose words
stand in the cell of one row of a pipe table of the reader's text; each found cell is used once.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\([^()]*\))?[^()\s]*\)")
_MARKER = re.compile(r"^[ \t>]*(?:#{1,6}|[-*+•]|\d{1,3}[.)])[ \t]", re.MULTILINE)
_RULE = re.compile(r"^\s*\|?[\s:|-]*-[\s:|-]*\|?\s*$")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!|$&<>~-])")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_TAG = re.compile(r"</?(?:a|b|br|code|div|em|h[1-6]|i|img|li|ol|p|pre|span|strong|su[bp]|t[dhr]|table|u|ul)\b[^<>]*>")


def words_of(text: str) -> Counter[str]:
    """The words of a Markdown text, without its markup."""
    bare = _LINK.sub(r"\1", _COMMENT.sub(" ", text))
    bare = _ESCAPE.sub(r"\1", _MARKER.sub(" ", html.unescape(_TAG.sub(" ", bare))))
    folded = unicodedata.normalize("NFKC", bare.replace("\u00ad\n", "").replace("\u00ad", "")).casefold()
    return Counter(_WORD.findall(folded.replace("**", "").replace("`", "")))


def word_recall(expected: str, found: str) -> float:
    """Share of the expected words that were found, from 0 to 1; 1 when nothing was expected."""
    wanted = words_of(expected)
    total = wanted.total()
    return (wanted & words_of(found)).total() / total if total else 1.0


def missing_words(expected: str, found: str) -> Counter[str]:
    """The expected words that were not found."""
    return words_of(expected) - words_of(found)


def cells_of(text: str) -> Counter[str]:
    """The cells of the text's pipe tables of two columns or more, each as its sorted words; empty ones left out.

    A pipe table is a run of lines with pipes, one of them the rule under the header.
    """
    cells: Counter[str] = Counter()
    run: list[str] = []
    for line in (*text.split("\n"), ""):
        if "|" in line:
            run.append(line.strip())
            continue
        if any(map(_RULE.match, run)):
            for row in run:
                cells.update(_cells_of_row(row))
        run = []
    return cells


def _cells_of_row(row: str) -> list[str]:
    parts = re.split(r"(?<!\\)\|", row.removeprefix("|").removesuffix("|"))
    if len(parts) < 2 or _RULE.match(row):
        return []
    return list(filter(None, (" ".join(sorted(words_of(part).elements())) for part in parts)))


def cell_recall(expected: str, found: str) -> tuple[int, int]:
    """How many of the expected cells were found, and how many were expected."""
    wanted = cells_of(expected)
    return (wanted & cells_of(found)).total(), wanted.total()
