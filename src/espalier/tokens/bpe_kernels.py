"""Byte-pair encoding of one word by its bytes, compiled. Knows arrays; no tokenizer, no text.

The rule is Hugging Face's: again and again the pair of lowest rank, the leftmost of equals, becomes one token
(https://github.com/huggingface/tokenizers, models/bpe/word.rs).

Legend: n = symbols of the word at the start (bytes, or characters and bytes). NOTHING = no merge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from espalier.tokens.bpe_tables import GOLDEN, NOTHING, Merges
from espalier.tokens.compiling import Whole, kernel, load1, load8

SHORT_WORD = 40  # symbols up to which moving an array beats keeping a heap; measured
_MIX = np.uint64(GOLDEN)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ONE = np.uint64(1)
_FOUR = np.uint64(4)  # a slot of the table of pairs is 1 << 4 bytes
_EIGHT = np.uint64(8)


@kernel
def find_merge(pairs: Whole, shift: Whole, left: Whole, right: Whole) -> Whole:
    """`rank << 32 | id` of a pair, NOTHING when it does not merge. pairs: the table's address."""
    key = np.uint64(left) << _HALF | np.uint64(right)
    slot = (key * _MIX) >> shift
    found = load8(pairs + (slot << _FOUR))
    while found != key and found != NOTHING:
        slot = (slot + _ONE) & (NOTHING >> shift)
        found = load8(pairs + (slot << _FOUR))
    return load8(pairs + (slot << _FOUR) + _EIGHT)  # NOTHING in an empty slot


@kernel
def decode_point(address: Whole, available: Whole) -> tuple[Whole, Whole]:
    """The code point at an address and how many bytes it takes; what of it there is where UTF-8 is cut short."""
    lead = np.int64(load1(address))
    size = min(1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4, available)
    point = lead if lead < 0x80 else lead & (0x7F >> size)
    for offset in range(1, size):
        point = point << 6 | np.int64(load1(address + np.uint64(offset))) & 0x3F
    return min(point, 0x10FFFF), size


@kernel
def encode_word(
    data: npt.NDArray[np.uint8], start: Whole, end: Whole, merges: Merges, out: npt.NDArray[np.int32], at: Whole
) -> Whole:
    """Write the ids of the word data[start:end] to out[at:] and return how many there are (at most end - start)."""
    count = end - start
    if len(merges.character_ids) == 0:
        for offset in range(count):
            out[at + offset] = merges.byte_ids[data[start + offset]]
    else:
        count = _spell_characters(data, start, end, merges, out, at)
    if count <= SHORT_WORD:
        return _merge_short(merges, out, at, count)
    return _merge_long(merges, out, at, count)


@kernel
def _spell_characters(
    data: npt.NDArray[np.uint8], start: Whole, end: Whole, merges: Merges, out: npt.NDArray[np.int32], at: Whole
) -> Whole:
    """One symbol a character, or its bytes where the vocabulary lacks it; how many there are."""
    count = 0
    here = start
    while here < end:
        point, size = decode_point(np.uint64(data.ctypes.data + here), end - here)
        if merges.character_ids[point] >= 0:
            out[at + count] = merges.character_ids[point]
            count += 1
        else:
            for offset in range(size):
                out[at + count] = merges.byte_ids[data[here + offset]]
                count += 1
        here += size
    return count


@kernel
def _merge_short(merges: Merges, out: npt.NDArray[np.int32], at: Whole, count: Whole) -> Whole:
    """Look for the lowest rank each time; the symbols stay together in out[at:at + count]."""
    pairs, shift = np.uint64(merges.pairs.ctypes.data), np.uint64(merges.shift)
    ranks = np.empty(SHORT_WORD, np.uint64)
    for here in range(count - 1):
        ranks[here] = find_merge(pairs, shift, out[at + here], out[at + here + 1])
    while count > 1:
        best = 0
        lowest = ranks[0]
        for here in range(1, count - 1):
            if ranks[here] < lowest:  # the value starts with the rank, and equal ranks have equal values
                lowest = ranks[here]
                best = here
        if lowest == NOTHING:
            break
        out[at + best] = np.int32(lowest & _LOW)
        count -= 1
        for here in range(best + 1, count):
            out[at + here] = out[at + here + 1]
            ranks[here - 1] = ranks[here]
        if best < count - 1:
            ranks[best] = find_merge(pairs, shift, out[at + best], out[at + best + 1])
        if best > 0:
            ranks[best - 1] = find_merge(pairs, shift, out[at + best - 1], out[at + best])
    return count


@kernel
def _merge_long(merges: Merges, out: npt.NDArray[np.int32], at: Whole, count: Whole) -> Whole:
    """The same in n log n: a linked list of symbols and a heap of `rank << 32 | position`."""
    pairs, shift = np.uint64(merges.pairs.ctypes.data), np.uint64(merges.shift)
    following = np.empty(count, np.int32)
    before = np.empty(count, np.int32)
    value = np.empty(count, np.uint64)  # of the pair that starts here; NOTHING once the symbol is gone
    heap = np.empty(2 * count, np.uint64)  # a merge takes one pair out and puts at most two in; count - 1 at most
    size = 0
    for first in range(count):
        following[first] = first + 1
        before[first] = first - 1
        value[first] = NOTHING
        if first < count - 1:
            value[first] = find_merge(pairs, shift, out[at + first], out[at + first + 1])
            if value[first] != NOTHING:
                size = _push(heap, size, value[first] >> _HALF << _HALF | np.uint64(first))
    remaining = count
    while size > 0:
        lowest = heap[0]
        size = _pop(heap, size)
        here: Whole = np.int64(lowest & _LOW)
        if value[here] == NOTHING or value[here] >> _HALF != lowest >> _HALF:
            continue  # a symbol of this pair has merged since
        gone = np.int64(following[here])
        out[at + here] = np.int32(value[here] & _LOW)
        following[here] = following[gone]
        value[gone] = NOTHING
        out[at + gone] = -1
        remaining -= 1
        value[here] = NOTHING
        if following[here] < count:
            before[following[here]] = here
            value[here] = find_merge(pairs, shift, out[at + here], out[at + following[here]])
            if value[here] != NOTHING:
                size = _push(heap, size, value[here] >> _HALF << _HALF | np.uint64(here))
        prior = np.int64(before[here])
        if prior >= 0:
            value[prior] = find_merge(pairs, shift, out[at + prior], out[at + here])
            if value[prior] != NOTHING:
                size = _push(heap, size, value[prior] >> _HALF << _HALF | np.uint64(prior))
    kept = 0
    for symbol in range(count):
        if out[at + symbol] >= 0:
            out[at + kept] = out[at + symbol]
            kept += 1
    return remaining


@kernel
def _push(heap: npt.NDArray[np.uint64], size: Whole, item: Whole) -> Whole:
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if heap[parent] <= item:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = item
    return size + 1


@kernel
def _pop(heap: npt.NDArray[np.uint64], size: Whole) -> Whole:
    """Take the least item away; read it at heap[0] before."""
    size -= 1
    item = heap[size]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= item:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = item
    return size
