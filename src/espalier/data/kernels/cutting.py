"""Cuts long texts at the last paragraph end, line end or space that fits. Knows bytes and characters, not tokens.

Legend: n = rows, m = chunks, B = bytes of the rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from espalier.data.kernels.buffers import Bytes, Offsets
from espalier.data.kernels.compiling import kernel

_TAB, _LINE_END, _PAGE_END, _SPACE = 9, 10, 12, 32


@kernel
def cut_rows(
    data: Bytes,
    offsets: Offsets,
    whole: npt.NDArray[np.bool_],
    size_bytes: int,
    overlap_bytes: int,
    least_bytes: int,
    parents: Offsets,
    starts: Offsets,
    ends: Offsets,
    first_chars: Offsets,
    end_chars: Offsets,
) -> int:
    """Fill the row, bytes in `data` and characters in the row of each chunk (m,); returns m.

    No chunk is longer than `size_bytes`, none but a row's only one is shorter than `least_bytes` before the blanks at
    its edges go, and each repeats at most `overlap_bytes` of the one before, from a word's start on.
    Rows of `whole` (n,) are one chunk each, untouched.
    Needs overlap_bytes <= size_bytes // 4, least_bytes <= size_bytes // 2, size_bytes >= 16.
    """
    made = 0
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        counted, chars = start, 0
        if whole[row]:
            parents[made], starts[made], ends[made] = row, start, end
            first_chars[made], end_chars[made] = 0, _count_chars(data, start, end)
            made += 1
            continue
        while start < end:
            cut = end if end - start <= size_bytes else _find_cut(data, start, end, size_bytes, least_bytes)
            first, last = start, cut
            # Blank lines before it go, the indentation of its first line stays.
            i = first
            while i < last and _is_blank(data[i]):
                i += 1
                if data[i - 1] == _LINE_END or data[i - 1] == _PAGE_END:
                    first = i
            while last > first and _is_blank(data[last - 1]):
                last -= 1
            if last > first:
                chars += _count_chars(data, counted, first)
                counted = first
                parents[made], starts[made], ends[made] = row, first, last
                first_chars[made], end_chars[made] = chars, chars + _count_chars(data, first, last)
                made += 1
            start = cut if cut == end or overlap_bytes == 0 else _step_back(data, cut, overlap_bytes)
            # The next chunk's first character is not counted from behind this one's.
            if start < counted:
                chars -= _count_chars(data, start, counted)
                counted = start
    return made


@kernel
def _is_blank(byte: np.uint8) -> bool:
    return bool(byte in (_SPACE, _LINE_END, _TAB, _PAGE_END))


@kernel
def _find_cut(data: Bytes, start: int, end: int, size_bytes: int, least_bytes: int) -> int:
    low, high = start + size_bytes // 2, min(start + size_bytes, end - least_bytes)
    for j in range(high, low, -1):
        if data[j - 1] == _LINE_END and data[j - 2] == _LINE_END:
            return j
    for j in range(high, low, -1):
        if data[j - 1] == _LINE_END:
            return j
    for j in range(high, low, -1):
        if data[j - 1] == _SPACE:
            return j
    while high > low and data[high] & 0xC0 == 0x80:
        high -= 1
    return high


@kernel
def _step_back(data: Bytes, cut: int, overlap_bytes: int) -> int:
    for j in range(cut - overlap_bytes, cut):
        if data[j - 1] == _SPACE or data[j - 1] == _LINE_END:
            return j
    return cut


@kernel
def _count_chars(data: Bytes, start: int, end: int) -> int:
    chars = 0
    for i in range(start, end):
        chars += (data[i] & 0xC0) != 0x80
    return chars


@kernel
def gather(data: Bytes, starts: Offsets, ends: Offsets, out: Bytes, offsets: Offsets) -> None:
    """Copy the stretches (m,) of `data` one after the other to `out`, and say where they end in `offsets` (m + 1,)."""
    written = 0
    for row in range(len(starts)):
        length = ends[row] - starts[row]
        out[written : written + length] = data[starts[row] : ends[row]]
        written += length
        offsets[row + 1] = written
