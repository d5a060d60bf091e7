"""How much of a text repeats: lines, paragraphs and runs of n words (Rae et al. 2021, https://arxiv.org/abs/2112.11446).

Words are compared by a 64-bit hash of their bytes; lines, paragraphs and n-grams are the same when their words are.
Where a bound shows that a share stays within its limit, it is not worked out, and stands as 0.

Legend: n = rows, t = sizes of n-grams whose most frequent one is weighed, r = sizes of which all repeats are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from espalier.data.kernels.buffers import Bytes, Offsets
from espalier.data.kernels.characters import code_point_at, width_of
from espalier.data.kernels.compiling import kernel
from espalier.data.kernels.prose import SPACE

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Limits = npt.NDArray[np.float64]
# Columns of what `count_repetition` counts before those of the n-grams.
COUNTS = (
    "chars",
    "lines",
    "repeated_lines",
    "repeated_line_chars",
    "paragraphs",
    "repeated_paragraphs",
    "repeated_paragraph_chars",
)
_N_COUNTS = len(COUNTS)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(32)


@kernel
def count_repetition(
    data: Bytes,
    offsets: Offsets,
    classes: Bytes,
    top_sizes: Ints,
    top_limits: Limits,
    repeat_sizes: Ints,
    repeat_limits: Limits,
    counts: Ints,
) -> None:
    """Fill `counts` (n, len(COUNTS) + t + r); the n-grams' columns are characters.

    top_sizes, repeat_sizes: (t,), (r,) ascending; their limits are shares of the text's characters.
    """
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    most = longest // 2 + 2
    slots = 2
    while slots < 2 * most:
        slots *= 2
    words, grams = np.empty(most, np.uint64), np.empty(most, np.uint64)
    lines, paragraphs = np.empty(most, np.uint64), np.empty(most, np.uint64)
    widths, line_widths, paragraph_widths = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    table, keys = np.empty(slots, np.int32), np.empty(most, np.uint64)
    # Of the shortest n-gram at each word which one it is, and how often each occurs; and the same of longer ones.
    short_entries, short_counts = np.empty(most, np.int32), np.empty(most, np.int64)
    entries, found = np.empty(most, np.int32), np.empty(most, np.int64)
    for row in range(len(offsets) - 1):
        out = counts[row]
        chars, n_words, n_lines, n_paragraphs = _split(
            data,
            offsets[row],
            offsets[row + 1],
            classes,
            words,
            widths,
            lines,
            line_widths,
            paragraphs,
            paragraph_widths,
        )
        out[0], out[1], out[4] = chars, n_lines, n_paragraphs
        out[2], out[3] = _count_repeats(lines, line_widths, n_lines, table, keys)
        out[5], out[6] = _count_repeats(paragraphs, paragraph_widths, n_paragraphs, table, keys)
        for k in range(len(top_sizes)):
            size = top_sizes[k]
            if k == 0:
                chars_of_top = _weigh_top(words, widths, n_words, size, grams, table, keys, short_entries, short_counts)
            # No longer n-gram is more frequent than the shorter one it begins with.
            elif _bound_top(widths, n_words, size, short_entries, short_counts) <= top_limits[k] * chars:
                chars_of_top = 0
            else:
                chars_of_top = _weigh_top(words, widths, n_words, size, grams, table, keys, entries, found)
            out[_N_COUNTS + k] = chars_of_top
        first = _N_COUNTS + len(top_sizes)
        if len(repeat_sizes) == 0:
            continue
        # Words of a longer repeated n-gram are words of the shortest repeated ones.
        covered = _cover_repeats(words, widths, n_words, repeat_sizes[0], grams, table, keys)
        needed = False
        for k in range(len(repeat_sizes)):
            needed = needed or covered > repeat_limits[k] * chars
        for k in range(len(repeat_sizes)):
            out[first + k] = (
                _weigh_repeats(words, widths, n_words, repeat_sizes[k], grams, table, keys) if needed else 0
            )


@kernel
def _split(
    data: Bytes,
    start: int,
    end: int,
    classes: Bytes,
    words: Hashes,
    widths: Ints,
    lines: Hashes,
    line_widths: Ints,
    paragraphs: Hashes,
    paragraph_widths: Ints,
) -> tuple[int, int, int, int]:
    """Hash and width in characters of each word, line and paragraph; returns how many characters, and of each."""
    chars = n_words = n_lines = n_paragraphs = 0
    word_first = line_first = paragraph_first = -1
    last_char = 0  # of the line and the paragraph so far
    line_words = paragraph_words = 0
    word = line = paragraph = np.uint64(0)
    solid = np.zeros(256, np.bool_)  # characters of one byte that are no white space
    solid[:128] = classes[:128] & SPACE == 0
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
        if bits & SPACE:
            if word_first >= 0:
                word = (word ^ (word >> _SHIFT)) * _MIX
                word ^= word >> _SHIFT
                words[n_words] = word
                widths[n_words] = chars - word_first
                n_words += 1
                line = line * _MULTIPLIER + word
                paragraph = paragraph * _MULTIPLIER + word
                line_words += 1
                paragraph_words += 1
                last_char = chars
                word_first = -1
            if byte == 10:
                blank = line_first < 0
                if not blank:
                    lines[n_lines] = line * _MULTIPLIER + np.uint64(line_words)
                    line_widths[n_lines] = last_char - line_first
                    n_lines += 1
                    line_first, line, line_words = -1, np.uint64(0), 0
                if (blank or at_end) and paragraph_first >= 0:
                    paragraphs[n_paragraphs] = paragraph * _MULTIPLIER + np.uint64(paragraph_words)
                    paragraph_widths[n_paragraphs] = last_char - paragraph_first
                    n_paragraphs += 1
                    paragraph_first, paragraph, paragraph_words = -1, np.uint64(0), 0
            if not at_end:
                chars += 1
            i += width
            continue
        if word_first < 0:
            word_first = chars
            word = np.uint64(0)
            if line_first < 0:
                line_first = chars
                if paragraph_first < 0:
                    paragraph_first = chars
        for k in range(width):
            word = (word + np.uint64(data[i + k]) + np.uint64(1)) * _MULTIPLIER
        chars += 1
        i += width
        first = i
        while i < end and solid[data[i]]:
            word = (word + np.uint64(data[i]) + np.uint64(1)) * _MULTIPLIER
            i += 1
        chars += i - first
    return chars, n_words, n_lines, n_paragraphs


@kernel
def _clear(table: npt.NDArray[np.int32], entries: int) -> int:
    """Empty as much of the table as `entries` need; returns the mask of a slot."""
    slots = 2
    while slots < 2 * entries:
        slots *= 2
    table[:slots] = -1
    return slots - 1


@kernel
def _find(table: npt.NDArray[np.int32], mask: int, keys: Hashes, entries: int, key: np.uint64) -> int:
    """The entry of `key`; a new one, with the number `entries`, when it has none."""
    slot = int(key ^ (key >> _SHIFT)) & mask
    while True:
        entry = table[slot]
        if entry < 0:
            table[slot] = entries
            keys[entries] = key
            return entries
        if keys[entry] == key:
            return int(entry)
        slot = (slot + 1) & mask


@kernel
def _count_repeats(hashes: Hashes, widths: Ints, n: int, table: npt.NDArray[np.int32], keys: Hashes) -> tuple[int, int]:
    """How many of the n occurred before, and their characters."""
    if n < 2:
        return 0, 0
    mask = _clear(table, n)
    entries = repeats = chars = 0
    for i in range(n):
        if _find(table, mask, keys, entries, hashes[i]) == entries:
            entries += 1
        else:
            repeats += 1
            chars += widths[i]
    return repeats, chars


@kernel
def _join(words: Hashes, n: int, size: int, grams: Hashes) -> int:
    """A hash of each run of `size` words; returns how many there are."""
    for i in range(n - size + 1):
        gram = np.uint64(0)
        for k in range(size):
            gram = gram * _MULTIPLIER + words[i + k]
        grams[i] = gram
    return max(n - size + 1, 0)


@kernel
def _width(widths: Ints, i: int, size: int) -> int:
    """Characters of the n-gram at word i, a space between words."""
    width = size - 1
    for k in range(size):
        width += widths[i + k]
    return width


@kernel
def _bound_top(widths: Ints, n: int, size: int, entries: npt.NDArray[np.int32], counts: Ints) -> int:
    """At most so many characters are in the most frequent n-gram, going by how often shorter ones occur."""
    most = 0
    for i in range(n - size + 1):
        count = counts[entries[i]]
        if count > 1:
            most = max(most, count * _width(widths, i, size))
    return most


@kernel
def _weigh_top(
    words: Hashes,
    widths: Ints,
    n: int,
    size: int,
    grams: Hashes,
    table: npt.NDArray[np.int32],
    keys: Hashes,
    entries: npt.NDArray[np.int32],
    counts: Ints,
) -> int:
    """The characters of the most frequent n-gram (of several the first), all in all; 0 when none occurs twice.

    Fills which n-gram stands at each word, and how often each occurs.
    """
    total = _join(words, n, size, grams)
    mask = _clear(table, total)
    known = best = best_at = 0
    for i in range(total):
        entry = _find(table, mask, keys, known, grams[i])
        entries[i] = entry
        if entry == known:
            known += 1
            counts[entry] = 1
        else:
            counts[entry] += 1
    for entry in range(1, known):
        if counts[entry] > counts[best]:
            best = entry
    if total == 0 or counts[best] == 1:
        return 0
    while entries[best_at] != best:
        best_at += 1
    return int(counts[best]) * _width(widths, best_at, size)


@kernel
def _cover_repeats(
    words: Hashes, widths: Ints, n: int, size: int, grams: Hashes, table: npt.NDArray[np.int32], keys: Hashes
) -> int:
    """Characters of all words in any n-gram that occurred before, each with a space: a bound from above."""
    total = _join(words, n, size, grams)
    if total < 2:
        return 0
    mask = _clear(table, total)
    entries = covered = 0
    until = 0  # words before this one are counted
    for i in range(total):
        if _find(table, mask, keys, entries, grams[i]) == entries:
            entries += 1
            continue
        for k in range(max(i, until), i + size):
            covered += widths[k] + 1
        until = i + size
    return covered


@kernel
def _weigh_repeats(
    words: Hashes, widths: Ints, n: int, size: int, grams: Hashes, table: npt.NDArray[np.int32], keys: Hashes
) -> int:
    """Characters of the words in repeated n-grams from left to right, none counted twice (as datatrove has it)."""
    total = _join(words, n, size, grams)
    if total < 2:
        return 0
    mask = _clear(table, total)
    entries = chars = i = 0
    while i < total:
        if _find(table, mask, keys, entries, grams[i]) == entries:
            entries += 1
            i += 1
        else:
            for k in range(size):
                chars += widths[i + k]
            i += size
    return chars
