"""Spaces, line ends, quotes and invisible characters into one form, at memory speed.

Knows what to do with a character only from a table; which character is what, `clean/normalise.py` says.
Legend: n = rows, B = bytes in, C = code points the table covers.
"""

from __future__ import annotations

import numpy as np

from espalier.data.kernels.buffers import Bytes, Offsets
from espalier.data.kernels.characters import code_point_at, width_of
from espalier.data.kernels.compiling import kernel

COPY, DROP, BLANK, LINE_END, CARRIAGE_RETURN, PAGE_END, SINGLE, DOUBLE, DASH, ELLIPSIS, HARD = range(11)


@kernel
def normalise_rows(data: Bytes, offsets: Offsets, actions: Bytes, out: Bytes, ends: Offsets, hard: Bytes) -> int:
    """Write each row's new text to `out` (B,) and its end to `ends` (n + 1,); returns the bytes written.

    actions: what to do with each code point (C,). A row with a HARD one, one beyond the table, or bytes that are no
    UTF-8 is left empty and marked in `hard` (n,).
    """
    plain = np.zeros(256, np.bool_)
    plain[:128] = actions[:128] == COPY
    written = 0
    for row in range(len(offsets) - 1):
        start = written  # where the row's text begins in `out`
        solid = start  # the end of what is no trailing blank
        line_ends = 0  # how many stand at the end of `out`
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            byte = data[i]
            width = 1
            if byte < 128:
                action = actions[byte]
            else:
                width = width_of(data, i, end)
                code = code_point_at(data, i, width)
                action = actions[code] if 0 <= code < len(actions) else np.uint8(HARD)
            if action == COPY or action >= SINGLE:
                if action == HARD:
                    hard[row] = 1
                    solid = start
                    break
                if written > solid:
                    if solid == start:
                        written = start  # nothing blank leads a text
                    elif out[solid - 1] != 10 and out[solid - 1] != 12:
                        out[solid] = 32  # between words, one space; after a line's start, the indentation as it is
                        written = solid + 1
                if action == COPY:
                    for k in range(width):
                        out[written + k] = data[i + k]
                    written += width
                    i += width
                    # What most of a text is: plain characters, and single spaces or line ends between them.
                    while i < end:
                        if not plain[data[i]]:
                            if (data[i] != 32 and data[i] != 10) or i + 1 >= end or not plain[data[i + 1]]:
                                break
                            out[written] = data[i]
                            written += 1
                            i += 1
                        out[written] = data[i]
                        written += 1
                        i += 1
                else:
                    written = _write_plain(out, written, action)
                    i += width
                solid = written
                line_ends = 0
                continue
            i += width
            if action == BLANK:
                out[written] = byte if byte == 9 else 32
                written += 1
            elif action in (LINE_END, CARRIAGE_RETURN):
                if action == CARRIAGE_RETURN and i < end and data[i] == 10:
                    i += 1
                written = solid
                if written > start and line_ends < 2:
                    out[written] = 10
                    written += 1
                    solid = written
                    line_ends += 1
            elif action == PAGE_END:
                out[solid] = 12
                written = solid + 1
                solid = written
                line_ends = 0
        written = solid
        while written > start and (out[written - 1] == 10 or out[written - 1] == 32 or out[written - 1] == 9):
            written -= 1
        ends[row + 1] = written
    return written


@kernel
def _write_plain(out: Bytes, written: int, action: int) -> int:
    if action == SINGLE:
        out[written] = 39
    elif action == DOUBLE:
        out[written] = 34
    elif action == DASH:
        out[written] = 45
    else:
        for k in range(3):
            out[written + k] = 46
        return written + 3
    return written + 1
