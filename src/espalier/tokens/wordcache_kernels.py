"""Pieces of text to ids through the word cache, compiled. Knows arrays; no tokenizer, no text.

Legend: p = pieces, d = texts, t = tokens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from espalier.tokens.bpe_kernels import encode_word
from espalier.tokens.bpe_tables import GOLDEN, Merges
from espalier.tokens.compiling import Whole, kernel, load1, load8
from espalier.tokens.pretoken_kernels import TEXT
from espalier.tokens.wordcache_slots import Slots

INLINE_BYTES = 16
DONE, FULL = 0, 1
_PRIME = np.uint64(GOLDEN)
_OTHER_PRIME = np.uint64(0xC2B2AE3D27D4EB4F)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_EIGHT = np.uint64(8)
_SIXTEEN = np.uint64(16)
_FIVE = np.uint64(5)  # a slot of the table is 1 << 5 bytes
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@kernel
def read_eight(address: Whole, size: Whole, slack: Whole) -> Whole:
    """The first eight of `size` bytes as a number, least first, zeros after the last.

    slack: how many bytes may be read after those `size`.
    """
    if size >= 8:
        return load8(address)
    if size <= 0:
        return _ZERO
    if size + slack >= 8:
        return load8(address) & (_ALL >> np.uint64(64 - 8 * size))
    number = _ZERO
    for offset in range(size):
        number |= np.uint64(load1(address + np.uint64(offset))) << np.uint64(8 * offset)
    return number


@kernel
def mix(first: Whole, second: Whole) -> Whole:
    """A hash of two numbers."""
    mixed = (first ^ (second * _OTHER_PRIME)) * _PRIME
    mixed ^= mixed >> _HALF
    return mixed * _OTHER_PRIME ^ (mixed >> np.uint64(29))


@kernel
def word_key(address: Whole, size: Whole, slack: Whole) -> tuple[Whole, Whole, Whole]:
    """The first two numbers of a word's slot, the second 0 for a long word, and its hash."""
    if size <= INLINE_BYTES:
        first, second = read_eight(address, size, slack), read_eight(address + _EIGHT, size - 8, slack)
        return first, second, mix(first, second)
    mixed = np.uint64(size)
    for offset in range(0, size, 8):
        mixed = mix(mixed, read_eight(address + np.uint64(offset), size - offset, slack))
    return mixed, _ZERO, mixed


@kernel
def find_slot(
    table: Whole, last: Whole, keys: Whole, address: Whole, size: Whole, first: Whole, second: Whole, mixed: Whole
) -> Whole:
    """The slot that holds the word of `size` bytes at `address`, or the empty one where it belongs.

    table, keys: addresses of the cache's. last: the number of the last slot.
    """
    slot = mixed & last
    while True:
        here = table + (slot << _FIVE)
        meta = load8(here + _SIXTEEN)
        if meta == _ZERO:
            return slot
        if load8(here) == first and meta >> _HALF == np.uint64(size):
            place = load8(here + _EIGHT)
            if place == second if size <= INLINE_BYTES else same_bytes(address, keys + place, size):
                return slot
        slot = (slot + _ONE) & last


@kernel
def same_bytes(one: Whole, other: Whole, size: Whole) -> bool:
    """Whether the `size` bytes at two addresses are the same."""
    for offset in range(size):  # noqa: SIM110 - numba compiles no generator here
        if load1(one + np.uint64(offset)) != load1(other + np.uint64(offset)):
            return False
    return True


@kernel
def rehash(old: npt.NDArray[np.uint64], new: npt.NDArray[np.uint64], hash_mask: Whole) -> None:
    """Put every word of a table into a larger, empty one."""
    last = np.uint64(len(new) - 1)
    for number in range(len(old)):
        size = old[number, 2] >> _HALF
        if size == _ZERO:
            continue
        mixed = mix(old[number, 0], old[number, 1]) if size <= np.uint64(INLINE_BYTES) else old[number, 0]
        slot = mixed & hash_mask & last
        while new[slot, 2] != _ZERO:
            slot = (slot + _ONE) & last
        for column in range(4):
            new[slot, column] = old[number, column]


@kernel
def has_room(slots: Slots, size: Whole) -> bool:
    """Whether one more word of `size` bytes fits."""
    used = slots.used
    return bool(
        2 * used[0] < len(slots.table) and used[1] + size <= len(slots.keys) and used[2] + size <= len(slots.ids)
    )


@kernel
def keep_word(
    data: npt.NDArray[np.uint8],
    start: Whole,
    size: Whole,
    slots: Slots,
    slot: Whole,
    first: Whole,
    second: Whole,
    out: npt.NDArray[np.int32],
    at: Whole,
    count: Whole,
) -> None:
    """Fill an empty slot with the word data[start:start + size] and its ids out[at:at + count]."""
    table, used = slots.table, slots.used
    table[slot, 0] = first
    if size > INLINE_BYTES:
        place = used[1]
        for offset in range(size):
            slots.keys[place + offset] = data[start + offset]
        table[slot, 1] = np.uint64(place)
        used[1] += size
    else:
        table[slot, 1] = second
    if count == 1:
        table[slot, 3] = np.uint64(out[at])
    elif count == 2:
        table[slot, 3] = np.uint64(out[at]) | np.uint64(out[at + 1]) << _HALF
    else:
        place = used[2]
        for offset in range(count):
            slots.ids[place + offset] = out[at + offset]
        table[slot, 3] = np.uint64(place)
        used[2] += count
    table[slot, 2] = np.uint64(size) << _HALF | np.uint64(count)
    used[0] += 1


@kernel
def encode_pieces(
    data: npt.NDArray[np.uint8],
    ends: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.int32],
    pieces: Whole,
    text_ends: npt.NDArray[np.int64],
    merges: Merges,
    slots: Slots,
    hash_mask: Whole,
    taking: bool,
    word_bytes: Whole,
    keep: bool,
    out: npt.NDArray[np.int32],
    token_ends: npt.NDArray[np.int64],
    cursor: npt.NDArray[np.int64],
) -> Whole:
    """Write the ids of pieces to out (t,), and to token_ends (d,) how many tokens there are up to each text's end.

    Works on from cursor = [piece, byte, text, tokens] and returns DONE, or FULL when the cache must grow first (or be
    closed, `taking` false). Without `keep`, out is only room for one word and the tokens are just counted.
    """
    table, ids = slots.table, slots.ids
    last = np.uint64(len(table) - 1)
    text_address, table_address = np.uint64(data.ctypes.data), np.uint64(table.ctypes.data)
    keys_address = np.uint64(slots.keys.ctypes.data)
    start, text, total = cursor[1], cursor[2], cursor[3]
    for piece in range(cursor[0], pieces):
        while text_ends[text] <= start:
            token_ends[text] = total
            text += 1
        end = ends[piece]
        size = end - start
        at = total if keep else 0
        if kinds[piece] != TEXT:
            out[at] = kinds[piece]
            total += 1
            start = end
            continue
        if size > word_bytes:
            total += encode_word(data, start, end, merges, out, at)
            start = end
            continue
        address = text_address + np.uint64(start)
        first, second, mixed = word_key(address, size, len(data) - end)
        slot = find_slot(table_address, last, keys_address, address, size, first, second, mixed & hash_mask)
        count = np.int64(table[slot, 2] & _LOW)
        if count == 1:
            out[at] = np.int32(table[slot, 3])
        elif count == 2:
            out[at] = np.int32(table[slot, 3] & _LOW)
            out[at + 1] = np.int32(table[slot, 3] >> _HALF)
        elif count > 0:
            place = np.int64(table[slot, 3])
            for offset in range(count):
                out[at + offset] = ids[place + offset]
        else:
            if taking and not has_room(slots, size):
                cursor[0], cursor[1], cursor[2], cursor[3] = piece, start, text, total
                return FULL
            count = encode_word(data, start, end, merges, out, at)
            if taking:
                keep_word(data, start, size, slots, slot, first, second, out, at, count)
        total += count
        start = end
    while text < len(text_ends):
        token_ends[text] = total
        text += 1
    cursor[0], cursor[1], cursor[2], cursor[3] = pieces, start, text, total
    return DONE


@kernel
def find_unmerged(
    data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], ids: npt.NDArray[np.int32], merges: Merges
) -> npt.NDArray[np.bool_]:
    """Which words of a vocabulary the merges do not make. (words,)"""
    found = np.zeros(len(ends), np.bool_)
    start = 0
    for word in range(len(ends)):
        out = np.empty(max(1, ends[word] - start), np.int32)
        count = encode_word(data, start, ends[word], merges, out, 0)
        found[word] = count != 1 or out[0] != ids[word]
        start = ends[word]
    return found


@kernel
def pin_word(data: npt.NDArray[np.uint8], number: Whole, slots: Slots, hash_mask: Whole) -> None:
    """Have the whole of data, a word not yet there, stand for one id."""
    address, size = np.uint64(data.ctypes.data), len(data)
    first, second, mixed = word_key(address, size, 0)
    table, keys = np.uint64(slots.table.ctypes.data), np.uint64(slots.keys.ctypes.data)
    slot = find_slot(table, np.uint64(len(slots.table) - 1), keys, address, size, first, second, mixed & hash_mask)
    out = np.full(1, number, np.int32)
    keep_word(data, 0, len(data), slots, slot, first, second, out, 0, 1)


@kernel
def sum_lengths(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int32],
    token_ends: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int32],
) -> npt.NDArray[np.int64]:
    """Where each token ends, in bytes from its text's start, moved on to the end of a character. (t,)

    The texts are data[offsets[i]:offsets[i + 1]], their tokens ids[token_ends[i - 1]:token_ends[i]].
    """
    found = np.empty(len(ids), np.int64)
    token = 0
    for text in range(len(token_ends)):
        here = offsets[text]
        while token < token_ends[text]:
            here += lengths[ids[token]]
            end = here
            while end < offsets[text + 1] and data[end] & 0xC0 == 0x80:
                end += 1
            found[token] = end - offsets[text]
            token += 1
    return found
