"""Cutting text into pieces, compiled: at added tokens, by compiled patterns; and finding text to normalise.

Works on the bytes of many texts side by side. Pieces follow each other without gaps, so their ends say all.

Legend: p = pieces. ends: int64 (p,), byte offsets into data. kinds: int32 (p,), an added token's id, TEXT for text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from espalier.tokens.bpe_kernels import decode_point
from espalier.tokens.compiling import Whole, kernel, load1, load4
from espalier.tokens.pretoken_pattern import Automaton
from espalier.tokens.pretokenizer import AddedTokens

TEXT = -1


@kernel
def find_added(data: npt.NDArray[np.uint8], at: Whole, end: Whole, added: AddedTokens) -> Whole:
    """Which added token is written at data[at] (the longest), -1 for none."""
    pair = np.int64(data[at]) << 8
    if at + 1 < end:
        pair |= np.int64(data[at + 1])
    found: Whole = -1
    for number in range(added.buckets[pair], added.buckets[pair + 1]):
        token: Whole = np.int64(added.order[number])
        start = added.offsets[token]
        size = added.offsets[token + 1] - start
        same = 0
        while at + size <= end and same < size and data[at + same] == added.contents[start + same]:
            same += 1
        if same == size:
            found = token
            break
    return found


@kernel
def cut_added(
    data: npt.NDArray[np.uint8],
    start: Whole,
    ends: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.int32],
    count: Whole,
    added: AddedTokens,
    out_ends: npt.NDArray[np.int64],
    out_kinds: npt.NDArray[np.int32],
) -> Whole:
    """Cut pieces of text at added tokens, leftmost and longest first. Returns how many pieces there are then."""
    written = 0
    here = start
    for piece in range(count):
        end = ends[piece]
        open_from = here
        while here < end:
            if kinds[piece] != TEXT:
                here = end
                break
            if added.firsts[data[here]]:
                token = find_added(data, here, end, added)
                if token >= 0:
                    if here > open_from:
                        out_ends[written], out_kinds[written] = here, TEXT
                        written += 1
                    here += added.offsets[token + 1] - added.offsets[token]
                    out_ends[written], out_kinds[written] = here, added.ids[token]
                    written += 1
                    open_from = here
                    continue
            here += 1
        if end > open_from:
            out_ends[written], out_kinds[written] = end, kinds[piece]
            written += 1
    return written


@kernel
def match_size(text: Whole, size: Whole, classes: Whole, steps: Whole, width: Whole) -> Whole:
    """How many bytes the pattern matches at the start of a text of `size` bytes, -1 when it does not.

    text, classes, steps: addresses; of the text, and of what the automaton holds.
    """
    state, entered = np.uint64(width), np.uint64(2 * width)
    matched = -1
    here = 0
    while here < size:
        byte = load1(text + np.uint64(here))
        if byte < 128:
            kind = load1(classes + np.uint64(byte))
            taken = 1
        else:
            point, taken = decode_point(text + np.uint64(here), size - here)
            kind = load1(classes + np.uint64(point))
        step = np.uint64(load4(steps + (state + np.uint64(kind) << np.uint64(2))))
        if step & np.uint64(1):
            matched = here
        if step != entered:  # most steps stay in their state: predicted, the next look-up waits for no other
            entered = step
            state = step >> np.uint64(1)
            if state == 0:
                return matched
        here += taken
    last = load4(steps + (state + np.uint64(width - 1) << np.uint64(2)))
    return size if last & 1 else matched


@kernel
def cut_pattern(
    data: npt.NDArray[np.uint8],
    start: Whole,
    ends: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.int32],
    count: Whole,
    automaton: Automaton,
    out_ends: npt.NDArray[np.int64],
    out_kinds: npt.NDArray[np.int32],
) -> Whole:
    """Cut pieces of text into matches of a pattern and what lies between. Returns how many pieces there are then."""
    text = np.uint64(data.ctypes.data)
    classes, steps = np.uint64(automaton.classes.ctypes.data), np.uint64(automaton.steps.ctypes.data)
    written = 0
    here = start
    for piece in range(count):
        end = ends[piece]
        if kinds[piece] != TEXT:
            out_ends[written], out_kinds[written] = end, kinds[piece]
            written += 1
            here = end
        open_from = here
        while here < end:
            matched = match_size(text + np.uint64(here), end - here, classes, steps, automaton.width)
            if matched < 0:
                here += decode_point(text + np.uint64(here), end - here)[1]
                continue
            if here > open_from:
                out_ends[written], out_kinds[written] = here, TEXT
                written += 1
            here = open_from = here + matched
            out_ends[written], out_kinds[written] = here, TEXT
            written += 1
        if end > open_from:
            out_ends[written], out_kinds[written] = end, TEXT
            written += 1
    return written


@kernel
def mark_suspects(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], suspects: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """Which texts hold a character of suspects (0x110000,), each text data[offsets[i]:offsets[i + 1]]. (texts,)"""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for text in range(len(offsets) - 1):
        here, end = offsets[text], offsets[text + 1]
        while here < end:
            byte = data[here]
            if byte < 128:
                if suspects[byte]:
                    found[text] = True
                    break
                here += 1
                continue
            point, size = decode_point(np.uint64(data.ctypes.data + here), end - here)
            if suspects[point]:
                found[text] = True
                break
            here += size
    return found


@kernel
def mark_added(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], added: AddedTokens
) -> npt.NDArray[np.bool_]:
    """Which texts hold an added token. (texts,)"""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for text in range(len(offsets) - 1):
        end = offsets[text + 1]
        for here in range(offsets[text], end):
            if added.firsts[data[here]] and find_added(data, here, end, added) >= 0:
                found[text] = True
                break
    return found
