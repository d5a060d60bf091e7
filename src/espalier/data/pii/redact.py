"""Replaces personal data in texts, tags and answers by its kind: `[EMAIL]`, or `[EMAIL_3]` with `style: number`.

Redacting twice changes nothing more. The originals are kept nowhere; only counts per kind are reported.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from espalier.core.types import Document, Spec
from espalier.data.clean.outcome import Outcome
from espalier.data.pii.names import Names, read_names
from espalier.data.pii.rules import Finding, find_patterns

Kind = Literal["SECRET", "EMAIL", "IBAN", "CARD", "SSN", "IP", "PHONE"]
_REPLACEMENT = re.compile(r"\[[A-Z]+(_\d+)?\]")
# Tags that our readers write about the file itself.
_OWN_TAGS = frozenset({"format", "line", "pdf.pages", "mail.date", "mail.attachments"})


class RedactSpec(Spec):
    """Replace personal data and secrets."""

    step: Literal["redact"] = "redact"
    kinds: tuple[Kind, ...] = Field(get_args(Kind), description="kinds found by pattern and validator")
    names: str = Field("", description="CSV file with people's names, relative to the source folder; empty = none")
    name_columns: tuple[str, ...] = Field((), description="its columns that hold names; empty = those called like one")
    name_parts: bool = Field(True, description="also redact first and last names standing alone, when capitalised")
    style: Literal["mask", "number"] = Field(
        "mask", description="number: the same value gets the same number throughout"
    )


class Redactor:
    """Redacts texts one after another and counts what it replaced, by kind."""

    def __init__(self, spec: RedactSpec, names: Names | None = None) -> None:
        self._spec = spec
        self._names = names
        self._numbers: dict[tuple[str, str], int] = {}
        self.counts: Counter[str] = Counter()

    def redact(self, text: str, *, count: bool = True) -> str:
        """The text with every finding replaced; `count=False` for what repeats a text already counted."""
        while True:
            redacted = self._redact_once(text, count)
            if redacted == text:
                return text
            text = redacted  # what was taken out may have hidden its neighbour

    def _redact_once(self, text: str, count: bool) -> str:
        parts, last = [], 0
        for finding in find_personal(text, self._spec.kinds, self._names):
            value = text[finding.start : finding.end]
            parts += [text[last : finding.start], self._replacement(finding.kind, value)]
            last = finding.end
            self.counts[finding.kind] += count
        return "".join((*parts, text[last:])) if parts else text

    def _replacement(self, kind: str, value: str) -> str:
        if self._spec.style == "mask":
            return f"[{kind}]"
        key = (kind, "".join(value.casefold().split()))
        number = self._numbers.setdefault(key, 1 + sum(known == kind for known, _ in self._numbers))
        return f"[{kind}_{number}]"


def load_redactor(spec: RedactSpec, root: Path) -> Redactor:
    """A redactor with the names of `spec.names`, a path relative to `root`."""
    names = Names(read_names(root / spec.names, spec.name_columns), parts=spec.name_parts) if spec.names else None
    return Redactor(spec, names)


def redact_documents(documents: Sequence[Document], redactor: Redactor) -> Outcome:
    """Redact texts and tags of the kept documents; `counts` is per kind."""
    before = redactor.counts.copy()
    out = [document if document.dropped_because else redact_document(document, redactor) for document in documents]
    return Outcome(out, dict(sorted((redactor.counts - before).items())))


def redact_document(document: Document, redactor: Redactor) -> Document:
    """The document with its text and the tags that came from the source redacted."""
    tags = {
        name: value if name in _OWN_TAGS else redactor.redact(value, count=False)
        for name, value in document.tags.items()
    }
    return replace(document, text=redactor.redact(document.text), tags=tags)


def find_personal(text: str, kinds: Sequence[str], names: Names | None) -> Iterator[Finding]:
    """Findings of patterns and names together, in order; where two overlap the pattern's is kept."""
    patterns = list(find_patterns(text, tuple(kinds))) if kinds else []
    if names is None:
        yield from patterns
        return
    taken = [(finding.start, finding.end) for finding in patterns]
    taken += [match.span() for match in _REPLACEMENT.finditer(text)]  # somebody may be called Email
    free = [name for name in names.find(text) if not any(name.start < end and start < name.end for start, end in taken)]
    yield from sorted(patterns + free, key=lambda finding: finding.start)
