"""Where a text may be cut: between words, sentences and sections, packed into pieces that are not too large.

Pure functions of one text. Knows no document; what tokens are, a `Measure` knows.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from espalier.data.clean.headings import find_sections

Measure = Callable[[Sequence[str]], Sequence[int]]  # the size of each text


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text, in characters."""

    start: int
    end: int
    heading: str = ""  # "Title > Section"


_WORD = re.compile(r"\S+")
# What ends a sentence: a stop before white space, a stop of a script that writes none, a blank line.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*|\n[^\S\n]*(?=\n)")
_NO_END = re.compile(r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|cf|Fig|No|Nr|bzw|z\.B|ca|al)\.\Z")
_PARAGRAPH, _LINE, _SPACE = 2, 1, 0


def cut_words(text: str, size: int, overlap: int, min_size: int, measure: Measure | None = None) -> list[Piece]:
    """Pieces of at most `size`, cut at the last paragraph end, line end or space in their second half."""
    words = _split_large(text, [Piece(*match.span()) for match in _WORD.finditer(text)], size, measure)
    gaps = (text[one.end : two.start] for one, two in itertools.pairwise(words))
    breaks = [_PARAGRAPH if gap.count("\n") > 1 else _LINE if "\n" in gap else _SPACE for gap in gaps]
    return _pack(text, words, [*breaks, _PARAGRAPH], size, overlap, min_size, measure)


def cut_sentences(text: str, size: int, overlap: int, min_size: int, measure: Measure | None = None) -> list[Piece]:
    """Pieces of whole sentences, at most `size`; a longer sentence is cut between words."""
    sentences = _split_large(text, split_sentences(text), size, measure)
    return _pack(text, sentences, [_SPACE] * len(sentences), size, overlap, min_size, measure)


def cut_sections(
    text: str, form: str, size: int, overlap: int, min_size: int, measure: Measure | None = None
) -> list[Piece]:
    """A piece for each section under a heading; small ones join the next, large ones are cut between sentences."""
    sections = [_strip(text, Piece(*item)) for item in find_sections(text, form)]
    joined: list[Piece] = []
    for section in sections:
        if section.start == section.end:
            continue
        before = joined[-1] if joined else section
        both = Piece(before.start, section.end, before.heading or section.heading)
        [one, two, together] = _weigh(text, [before, section, both], measure)
        if joined and min(one, two) < min_size and together <= size:
            joined[-1] = both
        else:
            joined.append(section)
    pieces = []
    for section, weight in zip(joined, _weigh(text, joined, measure), strict=True):
        body = text[section.start : section.end]
        parts = [Piece(0, len(body))] if weight <= size else cut_sentences(body, size, overlap, min_size, measure)
        pieces += [Piece(section.start + part.start, section.start + part.end, section.heading) for part in parts]
    return pieces


def split_sentences(text: str) -> list[Piece]:
    """The sentences, without the white space between them.

    A stop after an initial or a common abbreviation, or before a small letter, ends none.
    """
    out, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        following = text[match.end() : match.end() + 40].lstrip()
        unsure = match.group()[0] in ".…"
        before = text[max(start, match.start() - 8) : match.start() + 1]
        if unsure and (following[:1].islower() or _NO_END.search(before)):
            continue
        out.append(_strip(text, Piece(start, match.end())))
        start = match.end()
    out.append(_strip(text, Piece(start, len(text))))
    return [piece for piece in out if piece.start < piece.end]


def _split_large(text: str, units: list[Piece], size: int, measure: Measure | None) -> list[Piece]:
    """The units, each that is larger than `size` cut up: a sentence between words, a word in halves."""
    weights = _weigh(text, units, measure)
    if max(weights, default=0) <= size:
        return units
    out: list[Piece] = []
    for unit, weight in zip(units, weights, strict=True):
        body = text[unit.start : unit.end]
        if weight <= size or len(body) < 2:
            out.append(unit)
        elif len(body.split(maxsplit=1)) > 1:
            parts = cut_words(body, size, 0, 0, measure)
            out += [Piece(unit.start + part.start, unit.start + part.end) for part in parts]
        else:
            middle = unit.start + len(body) // 2
            halves = [Piece(unit.start, middle), Piece(middle, unit.end)]
            out += _split_large(text, halves, size, measure)
    return out


def _pack(
    text: str,
    units: list[Piece],
    breaks: Sequence[int],
    size: int,
    overlap: int,
    min_size: int,
    measure: Measure | None,
) -> list[Piece]:
    """Units in order, as many to a piece as fit. breaks: how good a place the end of each unit is to cut at.

    Tokens of a whole are not always the sum of its parts' tokens: what came out too large is packed less full.
    """
    begins, ends = _place(text, units, size, measure)
    room = size
    while True:
        filled = _fill(begins, ends, breaks, room, min(overlap, room // 4), min(min_size, room // 2))
        pieces = [Piece(units[first].start, units[last - 1].end) for first, last in filled]
        largest = max(_weigh(text, pieces, measure), default=0) if measure else 0
        if largest <= size or room <= 1:
            return pieces
        room = min(room - 1, room * size // largest)


def _place(text: str, units: list[Piece], size: int, measure: Measure | None) -> tuple[list[int], list[int]]:
    """Where units begin and end on a scale of characters, or of tokens with the white space before each."""
    if measure is None:
        return [unit.start for unit in units], [unit.end for unit in units]
    with_gaps = [Piece(one.end, two.end) for one, two in itertools.pairwise([Piece(0, 0), *units])]
    totals = list(itertools.accumulate((min(weight, size) for weight in _weigh(text, with_gaps, measure)), initial=0))
    return totals[:-1], totals[1:]


def _fill(
    begins: list[int], ends: list[int], breaks: Sequence[int], size: int, overlap: int, min_size: int
) -> list[tuple[int, int]]:
    """Units [first, last) of each piece, from where each begins and ends."""
    out, first, n = [], 0, len(ends)
    while first < n:
        last = max(first + 1, bisect.bisect_right(ends, begins[first] + size))
        if last < n:
            while last > first + 1 and ends[-1] - begins[last] < min_size:
                last -= 1
            middle = bisect.bisect_left(ends, begins[first] + size / 2, first, last - 1) + 1
            last = max(range(middle, last + 1), key=lambda k: (breaks[k - 1], k))
        out.append((first, last))
        back = bisect.bisect_left(begins, ends[last - 1] - overlap, first + 1, last)
        first = back if last < n else n
    return out


def _weigh(text: str, pieces: Sequence[Piece], measure: Measure | None) -> Sequence[int]:
    if measure is None:
        return [piece.end - piece.start for piece in pieces]
    return measure([text[piece.start : piece.end] for piece in pieces])


def _strip(text: str, piece: Piece) -> Piece:
    body = text[piece.start : piece.end]
    start = piece.start + len(body) - len(body.lstrip())
    return Piece(start, max(start, piece.end - len(body) + len(body.rstrip())), piece.heading)
