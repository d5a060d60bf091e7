"""Compiled loops over Arrow's UTF-8 buffers: words, shingles, MinHash bands, candidate pairs, Jaccard, union-find.

Import this module inside functions only: it loads numba. What the loops compute is described where they are called
from (`words`, `bands`, `candidates`, `verify`, `components`); they know arrays only.

Legend: n = texts, w = words of all texts, s = shingles of all texts, p = permutations, b = bands, c = code points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from espalier.data.kernels.compiling import kernel

BREAK, LETTER, ALONE, MARK = 0, 1, 2, 3
KIND_SHIFT = 30
_CODE_POINT = (1 << 21) - 1
# FNV-1a's 64-bit basis and prime; every hash is stirred once more by `_stir`.
_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_SPACE = np.uint8(32)


@kernel
def _stir(value: Any) -> Any:
    """The finaliser of splitmix64: every bit of the result depends on every bit of `value`."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel
def _write(out: Any, at: int, code: Any) -> int:
    """Write one code point as UTF-8; return where the next one goes."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | (code >> 6)
        out[at + 1] = 0x80 | (code & 63)
        return at + 2
    if code < 0x10000:
        out[at] = 0xE0 | (code >> 12)
        out[at + 1] = 0x80 | ((code >> 6) & 63)
        out[at + 2] = 0x80 | (code & 63)
        return at + 3
    out[at] = 0xF0 | (code >> 18)
    out[at + 1] = 0x80 | ((code >> 12) & 63)
    out[at + 2] = 0x80 | ((code >> 6) & 63)
    out[at + 3] = 0x80 | (code & 63)
    return at + 4


@kernel
def read_words(
    data: Any, offsets: Any, table: Any, text: Any, text_offsets: Any, hashes: Any, word_offsets: Any
) -> None:
    """Words of n texts: lower-cased and joined by one space into `text`, and a hash of each into `hashes` (w,).

    `table` (c,) holds for each code point its lower case, and its kind from bit `KIND_SHIFT` on.
    """
    at = 0
    word = 0
    for row in range(len(offsets) - 1):
        index = offsets[row]
        end = offsets[row + 1]
        state = BREAK
        value = _BASIS
        start = at
        while index < end:
            code = np.int64(data[index])
            if code < 0x80:
                index += 1
            elif code < 0xE0:
                code = ((code & 31) << 6) | (data[index + 1] & 63)
                index += 2
            elif code < 0xF0:
                code = ((code & 15) << 12) | ((data[index + 1] & 63) << 6) | (data[index + 2] & 63)
                index += 3
            else:
                code = (
                    ((code & 7) << 18)
                    | ((data[index + 1] & 63) << 12)
                    | ((data[index + 2] & 63) << 6)
                    | (data[index + 3] & 63)
                )
                index += 4
            entry = np.int64(table[code]) if code < len(table) else np.int64(0)
            kind = int(entry >> KIND_SHIFT)
            if state != BREAK and (kind in (BREAK, ALONE) or (kind == LETTER and state == ALONE)):
                hashes[word] = _stir(value)
                word += 1
                state = BREAK
            if kind == BREAK or (kind == MARK and state == BREAK):
                continue
            if state == BREAK:
                if at > start:
                    text[at] = _SPACE
                    at += 1
                value = _BASIS
                state = kind
            lower = entry & _CODE_POINT
            if lower < 0x80:
                text[at] = lower
                at += 1
            else:
                at = _write(text, at, lower)
            value = (value ^ np.uint64(lower)) * _PRIME
        if state != BREAK:
            hashes[word] = _stir(value)
            word += 1
        text_offsets[row + 1] = at
        word_offsets[row + 1] = word


@kernel
def _shingle(hashes: Any, first: int, last: int) -> Any:
    value = _BASIS
    for index in range(first, last):
        value = _stir(value ^ hashes[index])
    return value


@kernel
def sign_bands(
    hashes: Any, word_offsets: Any, size: int, multipliers: Any, increments: Any, rows: int, keys: Any
) -> None:
    """The band keys of n texts into `keys` (b, n); 0 for a text without words.

    multipliers, increments: (p,) uint32; a shingle x has the hash a * x + b modulo 2^32 under a permutation.
    """
    permutations = len(multipliers)
    least = np.empty(permutations, np.uint32)
    block = np.empty(2048, np.uint32)  # stays in the first cache while every permutation passes over it
    for row in range(len(word_offsets) - 1):
        first = word_offsets[row]
        words = word_offsets[row + 1] - first
        if words == 0:
            keys[:, row] = 0
            continue
        least[:] = np.uint32(0xFFFFFFFF)
        width = min(size, words)
        shingles = words - width + 1
        done = 0
        while done < shingles:
            count = min(len(block), shingles - done)
            for index in range(count):
                value = _shingle(hashes, first + done + index, first + done + index + width)
                block[index] = np.uint32(value >> np.uint64(32))
            for which in range(permutations):
                multiplier = multipliers[which]
                increment = increments[which]
                lowest = least[which]
                for index in range(count):
                    value32 = np.uint32(block[index] * multiplier + increment)
                    lowest = min(lowest, value32)
                least[which] = lowest
            done += count
        for band in range(len(keys)):
            value = _BASIS
            for which in range(band * rows, (band + 1) * rows):
                value = _stir(value ^ np.uint64(least[which]))
            keys[band, row] = value if value != 0 else np.uint64(1)


@kernel
def collect_shingles(hashes: Any, word_offsets: Any, size: int, out: Any, out_offsets: Any) -> None:
    """The different shingles of each of n texts into `out` (s,), in order of first appearance."""
    longest = 0
    for row in range(len(word_offsets) - 1):
        longest = max(longest, word_offsets[row + 1] - word_offsets[row])
    slots = 16
    while slots < 2 * longest:
        slots *= 2
    table = np.zeros(slots, np.uint64)
    owner = np.full(slots, -1, np.int64)
    at = 0
    for row in range(len(word_offsets) - 1):
        first = word_offsets[row]
        words = word_offsets[row + 1] - first
        width = min(size, words)
        # A table just large enough for this text keeps short ones in the cache.
        mask = 16
        while mask < 2 * words:
            mask *= 2
        mask -= 1
        for index in range(words - width + 1 if words else 0):
            value = _shingle(hashes, first + index, first + index + width)
            slot = np.int64(value & np.uint64(mask))
            while owner[slot] == row and table[slot] != value:
                slot = (slot + 1) & mask
            if owner[slot] != row:
                owner[slot] = row
                table[slot] = value
                out[at] = value
                at += 1
        out_offsets[row + 1] = at


@kernel
def measure_pairs(pairs: Any, left: Any, left_offsets: Any, right: Any, right_offsets: Any, jaccards: Any) -> None:
    """The Jaccard index of each pair (m, 2) of a set on the left and one on the right into `jaccards` (m,).

    Sets are slices of `left` and `right` without repetitions. Pairs with the same left set should stand together.
    """
    longest = 0
    for index in range(len(left_offsets) - 1):
        longest = max(longest, left_offsets[index + 1] - left_offsets[index])
    slots = 16
    while slots < 2 * longest:
        slots *= 2
    table = np.zeros(slots, np.uint64)
    owner = np.full(slots, -1, np.int64)
    loaded = -1
    stamp = 0
    size = 0
    mask = 15
    for which in range(len(pairs)):
        one = pairs[which, 0]
        if one != loaded:
            loaded = one
            stamp = which
            size = left_offsets[one + 1] - left_offsets[one]
            mask = 16
            while mask < 2 * size:
                mask *= 2
            mask -= 1
            for index in range(left_offsets[one], left_offsets[one + 1]):
                slot = np.int64(left[index] & np.uint64(mask))
                while owner[slot] == stamp:
                    slot = (slot + 1) & mask
                owner[slot] = stamp
                table[slot] = left[index]
        other = pairs[which, 1]
        shared = 0
        for index in range(right_offsets[other], right_offsets[other + 1]):
            slot = np.int64(right[index] & np.uint64(mask))
            while owner[slot] == stamp and table[slot] != right[index]:
                slot = (slot + 1) & mask
            if owner[slot] == stamp:
                shared += 1
        together = size + right_offsets[other + 1] - right_offsets[other] - shared
        jaccards[which] = shared / together if together else 0.0


@kernel
def pair_up(packed: Any, kept: Any, small: int, leaders: int, known: int, out: Any) -> int:
    """Candidate pairs of sorted `packed` (key << 32 | position) into `out`, as later << 32 | earlier; how many.

    Of a bucket (equal keys) only rows that are `kept` count; of one larger than `small` only its first `leaders` rows
    are paired with the others. Rows before `known` are not paired with each other. An empty `out` only counts.
    """
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    members = np.empty(16, np.int64)
    count = 0
    start = 0
    while start < len(packed):
        end = start + 1
        while end < len(packed) and packed[end] >> shift == packed[start] >> shift:
            end += 1
        if end - start > len(members):
            members = np.empty(2 * (end - start), np.int64)
        size = 0
        for index in range(start, end):
            position = np.int64(packed[index] & low)
            if kept[position]:
                members[size] = position
                size += 1
        first = size if size <= small else min(size, leaders)
        for one in range(first):
            for other in range(one + 1, size):
                if members[other] >= known:
                    if len(out):
                        out[count] = (np.uint64(members[other]) << shift) | np.uint64(members[one])
                    count += 1
        start = end
    return count


@kernel
def choose_kept(pairs: Any, kept: Any) -> None:
    """Judge rows in order: sorted `pairs` (later << 32 | earlier) clear `kept[later]` where the earlier is kept."""
    low = np.uint64(0xFFFFFFFF)
    for index in range(len(pairs)):
        if kept[np.int64(pairs[index] & low)]:
            kept[np.int64(pairs[index] >> np.uint64(32))] = 0


@kernel
def unite(edges: Any, parent: Any) -> None:
    """Union-find with path halving over `parent` (n,), which becomes for each item the least of its component."""
    for index in range(len(edges)):
        one = edges[index, 0]
        other = edges[index, 1]
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        while parent[other] != other:
            parent[other] = parent[parent[other]]
            other = parent[other]
        if one < other:
            parent[other] = one
        elif other < one:
            parent[one] = other
    for item in range(len(parent)):
        parent[item] = parent[parent[item]]


@kernel
def hash_runs(hashes: Any, word_offsets: Any, size: int, out: Any, out_offsets: Any) -> None:
    """A hash of every run of `size` words of each of n texts into `out`; a shorter text has none."""
    base = np.uint64(0x9E3779B97F4A7C15)
    leading = np.uint64(1)
    for _ in range(size - 1):
        leading *= base
    at = 0
    for row in range(len(word_offsets) - 1):
        first = word_offsets[row]
        last = word_offsets[row + 1]
        if last - first >= size:
            value = np.uint64(0)
            for index in range(first, first + size):
                value = value * base + hashes[index]
            out[at] = _stir(value)
            at += 1
            for index in range(first + size, last):
                value = (value - hashes[index - size] * leading) * base + hashes[index]
                out[at] = _stir(value)
                at += 1
        out_offsets[row + 1] = at


_PROBES = 3


@kernel
def _probe(value: Any, shift: Any, which: int) -> Any:
    """The `which`-th bit of a value in a Bloom filter: other bits of it, turned to the top."""
    turn = np.uint64(19 * which)
    return ((value << turn) | (value >> ((np.uint64(64) - turn) & np.uint64(63)))) >> shift


@kernel
def mark_bits(values: Any, shift: int, bits: Any) -> None:
    """Put values into the Bloom filter `bits` of 2^(64 - shift) bits."""
    for index in range(len(values)):
        for which in range(_PROBES):
            place = _probe(values[index], np.uint64(shift), which)
            bits[place >> np.uint64(3)] |= np.uint8(1) << np.uint8(place & np.uint64(7))


@kernel
def sift(values: Any, shift: int, bits: Any, out: Any) -> int:
    """The places of values that may be in the Bloom filter into `out`; how many."""
    count = 0
    for index in range(len(values)):
        for which in range(_PROBES):
            place = _probe(values[index], np.uint64(shift), which)
            if not bits[place >> np.uint64(3)] & (np.uint8(1) << np.uint8(place & np.uint64(7))):
                break
        else:
            out[count] = index
            count += 1
    return count
