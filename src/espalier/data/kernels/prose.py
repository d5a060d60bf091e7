"""What quality rules ask of a text, counted in one pass: words, lines, symbols and how lines begin and end.

Counts only; which count is too many, `clean/quality.py` says. A word is what stands between white space (as Unicode
and `str.split` have it); a line stands between line ends, without the white space around it, and is not blank.

Legend: n = rows, C = code points the class table covers, w = stop words.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from espalier.data.kernels.buffers import Bytes, Offsets
from espalier.data.kernels.characters import code_point_at, width_of
from espalier.data.kernels.compiling import kernel

# Classes of a character, as bits.
SPACE, ALPHABETIC, ENDS_LINE, BULLET = 1, 2, 4, 8
_SYMBOL, _LONG = 16, 32
# Columns of what `count_prose` counts.
COUNTS = (
    "chars",
    "words",
    "word_chars",  # in all words
    "alphabetic_words",  # with at least one letter
    "stop_words",  # how many of the list occur
    "hashes",
    "ellipses",
    "lines",
    "bullet_lines",  # beginning with a bullet
    "ellipsis_lines",  # ending in an ellipsis
    "ended_lines",  # ending in one of the characters that end a line
    "short_lines",
    "line_breaks",
)
CHARS, WORDS, WORD_CHARS, ALPHABETIC_WORDS, STOP_WORDS, HASHES, ELLIPSES = range(7)
LINES, BULLET_LINES, ELLIPSIS_LINES, ENDED_LINES, SHORT_LINES, LINE_BREAKS = range(7, 13)


@kernel
def count_prose(
    data: Bytes,
    offsets: Offsets,
    classes: Bytes,
    stop_data: Bytes,
    stop_offsets: Offsets,
    first_stop: Offsets,
    short_line_chars: int,
    counts: npt.NDArray[np.int64],
) -> None:
    """Fill `counts` (n, len(COUNTS)).

    classes: bits of each code point (C,). stop_data, stop_offsets (w + 1,): the stop words, sorted; first_stop (257,):
    the first of them that begins with each byte.
    """
    # One byte's class, with marks for what needs a second look: symbols that are counted, longer characters.
    marks = np.full(256, _LONG, np.uint8)
    marks[:128] = classes[:128]
    marks[35] |= _SYMBOL
    marks[46] |= _SYMBOL
    stop_seen = np.full(len(stop_offsets), -1, np.int64)
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        extra = 0  # bytes beyond the first of each character
        found = counts[row]
        found[:] = 0
        line_start = line_end = -1
        line_first_char = line_end_char = 0
        line_ended = False
        i = start
        while i <= end:
            bits, width = np.uint8(SPACE), 1
            if i < end:
                bits = marks[data[i]]
                if bits & _LONG:
                    bits, width = _look_up(data, i, width_of(data, i, end), classes)
            if bits & SPACE:
                if (i == end or data[i] == 10) and line_start >= 0:
                    found[LINES] += 1
                    found[ENDED_LINES] += line_ended
                    found[ELLIPSIS_LINES] += _ends_in_ellipsis(data, line_start, line_end)
                    found[SHORT_LINES] += line_end_char - line_first_char <= short_line_chars
                    line_start = -1
                if i < end:
                    found[LINE_BREAKS] += data[i] == 10
                    extra += width - 1
                i += width
                continue
            word_start, first_char = i, i - start - extra
            if line_start < 0:
                line_start, line_first_char = i, first_char
                found[BULLET_LINES] += bits & BULLET != 0
            seen = bits
            while True:  # the word: here, and not in a function, for a call with arrays costs more than a word
                seen |= bits
                last = bits
                extra += width - 1
                i += width
                if i >= end:
                    break
                width = 1
                bits = marks[data[i]]
                if bits & _LONG:
                    bits, width = _look_up(data, i, width_of(data, i, end), classes)
                if bits & SPACE:
                    break
            if seen & (_LONG | _SYMBOL):
                _count_symbols(data, word_start, i, found)
            line_end, line_end_char, line_ended = i, i - start - extra, last & ENDS_LINE != 0
            found[WORDS] += 1
            found[WORD_CHARS] += line_end_char - first_char
            found[ALPHABETIC_WORDS] += seen & ALPHABETIC != 0
            for k in range(first_stop[data[word_start]], first_stop[data[word_start] + 1]):
                if stop_seen[k] != row and _is_same(data, word_start, i, stop_data, stop_offsets, k):
                    stop_seen[k] = row
                    found[STOP_WORDS] += 1
        found[CHARS] = end - start - extra


@kernel
def _look_up(data: Bytes, i: int, width: int, classes: Bytes) -> tuple[np.uint8, int]:
    """The class of a character of several bytes, marked as one, and its width; 1 for what is no character."""
    code = code_point_at(data, i, width)
    if code < 0:
        return np.uint8(_LONG), 1
    return np.uint8((classes[code] if code < len(classes) else 0) | _LONG), width


@kernel
def _count_symbols(data: Bytes, start: int, end: int, found: npt.NDArray[np.int64]) -> None:
    """Add a word's hashes and ellipses, of three dots or of one character (U+2026)."""
    dots = 0
    for i in range(start, end):
        found[HASHES] += data[i] == 35
        dots = dots + 1 if data[i] == 46 else 0
        one = data[i] == 0xA6 and i >= start + 2 and data[i - 1] == 0x80 and data[i - 2] == 0xE2
        if one or dots == 3:
            found[ELLIPSES] += 1
            dots = 0


@kernel
def _is_same(data: Bytes, start: int, end: int, stop_data: Bytes, stop_offsets: Offsets, k: int) -> bool:
    first = stop_offsets[k]
    if stop_offsets[k + 1] - first != end - start:
        return False
    for j in range(end - start):  # noqa: SIM110 (a generator does not compile)
        if data[start + j] != stop_data[first + j]:
            return False
    return True


@kernel
def _ends_in_ellipsis(data: Bytes, start: int, end: int) -> bool:
    if end - start < 3:
        return False
    a, b, c = data[end - 3], data[end - 2], data[end - 1]
    return bool((a == 46 and b == 46 and c == 46) or (a == 0xE2 and b == 0x80 and c == 0xA6))
