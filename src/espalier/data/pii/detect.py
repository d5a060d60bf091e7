"""Everything that finds personal data, as one: the rules over bytes, and recognisers (names, plug-ins) over strings.

Where findings overlap, the rules' is kept, then the first recogniser's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from espalier.data.pii.finding import Finding
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
        self, texts: pa.LargeStringArray, patterns: dict[int, list[Finding]]
    ) -> Iterator[tuple[int, list[Finding]]]:
        for row, text in enumerate(texts.to_pylist()):
            known = patterns.get(row, [])
            found = [each for recognizer in self._recognizers for each in recognizer.find(text)]
            if found:
                known = _merge(known, found, text)
            if known:
                yield row, known


def _merge(known: list[Finding], found: Sequence[Finding], text: str) -> list[Finding]:
    """Byte findings and character findings together, in order; an earlier one wins over one that overlaps it."""
    to_byte = _ByteOffsets(text)
    taken = [(each.start, each.end) for each in known]
    taken += [(to_byte(match.start()), to_byte(match.end())) for match in WRITTEN.finditer(text)]
    merged = list(known)
    for each in found:
        start, end = to_byte(each.start), to_byte(each.end)
        if start < end and not any(start < high and low < end for low, high in taken):
            taken.append((start, end))
            merged.append(Finding(start, end, each.kind, each.rule))
    return sorted(merged)


class _ByteOffsets:
    """Character offsets -> byte offsets; the identity for ASCII."""

    def __init__(self, text: str) -> None:
        self._text = None if text.isascii() else text

    def __call__(self, offset: int) -> int:
        return offset if self._text is None else len(self._text[:offset].encode())
