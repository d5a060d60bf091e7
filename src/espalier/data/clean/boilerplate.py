"""Footers, disclaimers and navigation: lines that stand at the edge of many documents of the same format.

Driven by the data alone: no list of phrases. Only edges are peeled (of a document, and of each of its pages), and
lines that look like `name: value` are never counted, so that a value which many documents share is not mistaken for
decoration.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from espalier.core.types import Document, Spec
from espalier.data.clean.outcome import Outcome, with_text

PAGE_BREAK = "\f"


class BoilerplateSpec(Spec):
    """Peel off edge lines that many documents share."""

    step: Literal["boilerplate"] = "boilerplate"
    min_documents: int = Field(8, ge=2, description="boilerplate begins or ends a page of at least so many documents")
    min_share: float = Field(0.15, gt=0, le=1, description="... and of this share of the documents of its format")
    min_edge: float = Field(
        0.8, gt=0, le=1, description="a line that stands inside more often than this allows is kept"
    )
    min_chars: int = Field(16, ge=1, description="shorter lines are kept, but for page numbers and rules")
    edge_lines: int = Field(12, ge=1, description="most lines to peel from an edge")


_FIELD = re.compile(r"[\w#][\w .#/-]{0,30}: .*")
_PAGE_NUMBER = re.compile(r"(page|seite|p\.|pg\.)? ?-? ?\d{1,4}( ?(of|/|von) ?\d{1,4})? ?-?", re.IGNORECASE)
_WORD = re.compile(r"\w")
Page = list[str]


def peel_boilerplate(documents: Sequence[Document], spec: BoilerplateSpec) -> Outcome:
    """Counts the distinct boilerplate `lines` found and the `changed` documents."""
    groups: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        if not document.dropped_because:
            groups[document.tags.get("format", "")].append(document)
    common = {name: find_common_lines(group, spec) for name, group in groups.items()}
    out = [
        document
        if document.dropped_because
        else with_text(document, peel(document.text, common[_format(document)], spec))
        for document in documents
    ]
    changed = sum(old is not new for old, new in zip(documents, out, strict=True))
    return Outcome(out, {"lines": sum(map(len, common.values())), "changed": changed})


def find_common_lines(documents: Sequence[Document], spec: BoilerplateSpec) -> frozenset[str]:
    """The lines that begin or end pages in enough documents, and hardly ever stand elsewhere.

    Found from the outside in: what stands under a found line is at the edge in the next round.
    """
    enough = max(spec.min_documents, math.ceil(spec.min_share * len(documents)))
    if len(documents) < enough:
        return frozenset()
    pages = [_split_pages(document.text) for document in documents]
    holding = Counter(line for document in pages for line in {line for page in document for line in page})
    common: frozenset[str] = frozenset()
    at_edge: dict[str, set[int]] = defaultdict(set)
    for _ in range(spec.edge_lines):
        for index, document in enumerate(pages):
            for page in document:
                start, end = _peel_page(page, common, spec.edge_lines)
                for line in {*page[start : start + 1], *page[max(start, end - 1) : end]}:
                    at_edge[line].add(index)
        found = frozenset(
            line
            for line, where in at_edge.items()
            if len(where) >= max(enough, spec.min_edge * holding[line]) and _may_be_boilerplate(line, spec)
        )
        if found <= common:
            break
        common |= found
    return common


def peel(text: str, common: frozenset[str], spec: BoilerplateSpec) -> str:
    """The text without its pages' boilerplate edges; page breaks become line ends. Never peels to nothing."""
    pages = []
    for page in text.split(PAGE_BREAK):
        lines = page.split("\n")
        start, end = _peel_page(lines, common, spec.edge_lines)
        pages.append("\n".join(lines[start:end]))
    return "\n".join(page for page in pages if page) or text


def _split_pages(text: str) -> list[Page]:
    return [[line.strip() for line in page.split("\n")] for page in text.split(PAGE_BREAK)]


def _peel_page(lines: Page, common: frozenset[str], edge_lines: int) -> tuple[int, int]:
    start, end = 0, len(lines)
    peeled = 0
    while start < end and peeled < edge_lines and _is_decoration(lines[start], common):
        peeled += bool(lines[start].strip())
        start += 1
    peeled = 0
    while end > start and peeled < edge_lines and _is_decoration(lines[end - 1], common):
        peeled += bool(lines[end - 1].strip())
        end -= 1
    return start, end


def _is_decoration(line: str, common: frozenset[str]) -> bool:
    line = line.strip()
    return line in common or not _WORD.search(line) or bool(_PAGE_NUMBER.fullmatch(line))


def _may_be_boilerplate(line: str, spec: BoilerplateSpec) -> bool:
    return len(line) >= spec.min_chars and not _FIELD.fullmatch(line)


def _format(document: Document) -> str:
    return document.tags.get("format", "")
