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
    stop_seen = np.full(len(stop_offsets), -1, np.int64)
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        chars = words = word_chars = alphabetic = stops = hashes = ellipses = 0
        lines = bullets = ellipsis_lines = ended = short = breaks = 0
        word_start = line_start = line_end = -1
        word_first_char = line_first_char = line_last_char = dots = 0
        has_letter = line_ended = False
        i = start
        while i <= end:
            at_end = i == end
            byte = np.uint8(10) if at_end else data[i]
            width = 1
            if byte < 128:
                bits = classes[byte]
            else:
                width = width_of(data, i, end)
                code = code_point_at(data, i, width)
                if code < 0:
                    width = 1
                bits = classes[code] if 0 <= code < len(classes) else np.uint8(0)
                if code == 0x2026:
                    ellipses += 1
            if bits & SPACE:
                dots = 0
                if word_start >= 0:
                    words += 1
                    word_chars += chars - word_first_char
                    if has_letter:
                        alphabetic += 1
                    for k in range(first_stop[data[word_start]], first_stop[data[word_start] + 1]):
                        if stop_seen[k] != row and _is_same(data, word_start, i, stop_data, stop_offsets, k):
                            stop_seen[k] = row
                            stops += 1
                    word_start = -1
                if byte == 10:
                    if not at_end:
                        breaks += 1
                    if line_start >= 0:
                        lines += 1
                        if line_ended:
                            ended += 1
                        if _ends_in_ellipsis(data, line_start, line_end):
                            ellipsis_lines += 1
                        if line_last_char - line_first_char < short_line_chars:
                            short += 1
                        line_start = -1
                if not at_end:
                    chars += 1
                i += width
                continue
            if word_start < 0:
                word_start = i
                word_first_char = chars
                has_letter = False
            if line_start < 0:
                line_start = i
                line_first_char = chars
                if bits & BULLET:
                    bullets += 1
            line_last_char = chars
            line_end = i + width
            line_ended = bits & ENDS_LINE != 0
            if bits & ALPHABETIC:
                has_letter = True
            if byte == 46:
                dots += 1
                if dots == 3:
                    ellipses += 1
                    dots = 0
            else:
                dots = 0
                if byte == 35:
                    hashes += 1
            chars += 1
            i += width
            if bits == ALPHABETIC:  # what most of a text is: letters after letters
                first = i
                while i < end and data[i] < 128 and classes[data[i]] == ALPHABETIC:
                    i += 1
                if i > first:
                    chars += i - first
                    line_last_char = chars - 1
                    line_end = i
                    line_ended = False
        found = counts[row]
        found[0], found[1], found[2], found[3], found[4] = chars, words, word_chars, alphabetic, stops
        found[5], found[6], found[7], found[8], found[9] = hashes, ellipses, lines, bullets, ellipsis_lines
        found[10], found[11], found[12] = ended, short, breaks


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
