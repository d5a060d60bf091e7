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
    min_documents: int = Field(
        8, ge=2, description="a line is boilerplate when it ends or begins at least so many documents"
    )
    min_share: float = Field(0.15, gt=0, le=1, description="... and this share of the documents of its format")
    min_chars: int = Field(16, ge=1, description="shorter lines are left alone, but for bare page numbers")
    edge_lines: int = Field(12, ge=1, description="how far from an edge to look")


_FIELD = re.compile(r"[\w#][\w .#/-]{0,30}: .*")
_PAGE_NUMBER = re.compile(r"(page|seite|p\.|pg\.)? ?-? ?\d{1,4}( ?(of|/|von) ?\d{1,4})? ?-?", re.IGNORECASE)


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
    """The lines that stand near an edge in enough of the documents."""
    counts: Counter[str] = Counter()
    for document in documents:
        seen: set[str] = set()
        for page in document.text.split(PAGE_BREAK):
            lines = [line for line in page.split("\n") if line.strip()]
            seen.update(lines[: spec.edge_lines], lines[-spec.edge_lines :])
        counts.update(line.strip() for line in seen)
    enough = max(spec.min_documents, math.ceil(spec.min_share * len(documents)))
    return frozenset(
        line
        for line, count in counts.items()
        if count >= enough and len(line) >= spec.min_chars and not _FIELD.fullmatch(line)
    )


def peel(text: str, common: frozenset[str], spec: BoilerplateSpec) -> str:
    """The text without its pages' boilerplate edges; page breaks become line ends. Never peels to nothing."""
    pages = [_peel_page(page, common, spec.edge_lines) for page in text.split(PAGE_BREAK)]
    peeled = "\n".join(page for page in pages if page)
    return peeled if peeled else text


def _peel_page(page: str, common: frozenset[str], edge_lines: int) -> str:
    lines = page.strip("\n").split("\n")
    start, end = 0, len(lines)
    while start < min(end, edge_lines) and _is_decoration(lines[start], common):
        start += 1
    while end > max(start, len(lines) - edge_lines) and _is_decoration(lines[end - 1], common):
        end -= 1
    return "\n".join(lines[start:end]).strip("\n")


def _is_decoration(line: str, common: frozenset[str]) -> bool:
    line = line.strip()
    return not line or line in common or bool(_PAGE_NUMBER.fullmatch(line))


def _format(document: Document) -> str:
    return document.tags.get("format", "")
