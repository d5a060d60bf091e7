"""Everything that finds personal data, as one: the rules over bytes, and recognisers (names, plug-ins) over strings.

Where findings overlap, the rules' is kept, then the first recogniser's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from espalier.data.pii.finding import Finding, byte_offsets
from espalier.data.pii.names import Names
from espalier.data.pii.rules import load_rules
from espalier.data.pii.surrogates import WRITTEN, Surrogates
from espalier.data.pii.windows import scan_column


class Recognizer(Protocol):
    """Finds what no pattern can. Positions are characters of the text; findings may overlap and be out of order.

    One that has `is_local = True` looks no further than a hundred characters around what it finds.
    """

    def find(self, text: str) -> Iterable[Finding]: ...


class Detector:
    """Rules of some kinds and recognisers over columns of text."""

    def __init__(
        self,
        kinds: Sequence[str],
        recognizers: Sequence[Recognizer] = (),
        *,
        look_alikes: Iterable[str] = (),
    ) -> None:
        """look_alikes: kinds whose surrogates look like findings, and are left when they are found."""
        self._rules = load_rules(tuple(kinds))
        self._recognizers = tuple(recognizers)
        self._look_alikes = frozenset(look_alikes)

    @property
    def is_local(self) -> bool:
        """Whether what is found depends on the text nearby alone: true of rules and lists of names, not of models."""
        return all(getattr(recognizer, "is_local", False) for recognizer in self._recognizers)

    def find(self, texts: pa.LargeStringArray) -> Iterator[tuple[int, list[Finding]]]:
        """(row, findings) of the rows that have any, in order; positions are bytes, findings do not overlap."""
        found = scan_column(texts, self._rules) if self._rules else iter(())
        if self._recognizers:
            found = self._recognize(texts, dict(found))
        if not self._look_alikes:
            yield from found
            return
        for row, findings in found:
            text = texts[row].as_buffer().to_pybytes()
            strange = [each for each in findings if not self._is_own(each, text)]
            if strange:
                yield row, strange

    def _is_own(self, found: Finding, text: bytes) -> bool:
        return found.kind in self._look_alikes and Surrogates.is_own(found.kind, text[found.start : found.end])

    def _recognize(
        self, texts: pa.LargeStringArray, known: dict[int, list[Finding]]
    ) -> Iterator[tuple[int, list[Finding]]]:
        """What the rules know of each row, and what the recognisers add to it."""
        added: dict[int, list[Finding]] = {}
        for recognizer in self._recognizers:
            for row, findings in _find_column(recognizer, texts):
                added.setdefault(row, []).extend(findings)
        for row in sorted(known.keys() | added.keys()):
            if row in added:
                text = texts[row].as_py()
                yield row, _merge(known.get(row, []), added[row], text)
            else:
                yield row, known[row]


def _find_column(recognizer: Recognizer, texts: pa.LargeStringArray) -> Iterator[tuple[int, list[Finding]]]:
    """(row, findings), in bytes, of a recogniser: its own way over a column, or text by text."""
    if isinstance(recognizer, Names):
        yield from recognizer.find_column(texts)
        return
    for row, text in enumerate(texts.to_pylist()):
        to_byte = byte_offsets(text)
        findings = [each._replace(start=to_byte(each.start), end=to_byte(each.end)) for each in recognizer.find(text)]
        if findings:
            yield row, findings


def _merge(known: list[Finding], added: Sequence[Finding], text: str) -> list[Finding]:
    """Findings in order; an earlier one wins over one that overlaps it, and what redaction wrote over both."""
    to_byte = byte_offsets(text)
    taken = [(each.start, each.end) for each in known]
    taken += [(to_byte(match.start()), to_byte(match.end())) for match in WRITTEN.finditer(text)]
    merged = list(known)
    for each in added:
        if each.start < each.end and not any(each.start < high and low < each.end for low, high in taken):
            taken.append((each.start, each.end))
            merged.append(each)
    return sorted(merged)
