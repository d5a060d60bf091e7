"""Where a list of names may stand in a column of texts: every word is looked up by a hash of its ASCII letters (numba).

A word is what `names` takes for one: letters, with ' and - between them. Other letters than ASCII's are left out of the
hash, and so is case: what is looked up finds too much, never too little. What stands there is for `Names` to judge.

Legend: b = bytes of all texts, n = texts, h = slots of the hash table, w = windows.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from espalier.data.kernels.buffers import Bytes, Offsets
from espalier.data.kernels.compiling import kernel

Slots = npt.NDArray[np.uint64]
_BASIS, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1  # FNV-1a
# Anything else, ASCII capital, ASCII small letter, ' or -, first byte of a letter that some name has, white space.
_OTHER, _CAPITAL, _SMALL, _INNER, _FOREIGN, _SPACE = range(6)


def hash_word(word: str) -> int:
    """FNV-1a of the word's ASCII letters in lower case, and of ' and -; never 0."""
    value = _BASIS
    for char in word.lower():
        if char.isascii() and (char.isalpha() or char in "'-"):
            value = ((value ^ ord(char)) * _PRIME) & _MASK
    return value or 1


def build_table(words: Iterable[tuple[str, bool]]) -> tuple[Slots, Bytes, Bytes]:
    """Open addressing over the first words of names, each with whether it must be capitalised to count.

    Returns the hashes (h,), 1 where any case counts (h,), and the class of each byte (256,).
    """
    loose: dict[int, bool] = {}
    classes = np.zeros(256, np.uint8)
    for byte in range(128):
        char = chr(byte)
        classes[byte] = _SMALL if char.islower() else _CAPITAL if char.isupper() else _INNER if char in "'-" else _OTHER
    classes[[9, 10, 12, 13, 32]] = _SPACE
    for word, capitalised in words:
        value = hash_word(word)
        loose[value] = loose.get(value, False) or not capitalised
        for form in (word, word.upper(), word.lower(), word.title()):
            for char in form:
                if not char.isascii():
                    classes[char.encode()[0]] = _FOREIGN
    size = 1 << max(4, (4 * len(loose)).bit_length())
    hashes, cases = np.zeros(size, np.uint64), np.zeros(size, np.uint8)
    for value in sorted(loose):
        slot = value & (size - 1)
        while hashes[slot]:
            slot = (slot + 1) & (size - 1)
        hashes[slot], cases[slot] = value, loose[value]
    return hashes, cases, classes


@kernel
def find_name_windows(
    data: Bytes, offsets: Offsets, hashes: Slots, cases: Bytes, classes: Bytes, reach: int, out: npt.NDArray[np.int64]
) -> int:
    """Fill `out` (w, 3) with (text, start, end) around each word that may begin a name, in order; returns w.

    reach: bytes from a name's beginning to its end, at most. out: room for b // 2 + n rows suffices.
    """
    count = 0
    mask = np.uint64(len(hashes) - 1)
    for document in range(len(offsets) - 1):
        low, high = max(0, offsets[document]), offsets[document + 1]
        first, position = count, low
        while position < high:
            kind = classes[data[position]]
            if kind != 1 and kind != 2 and kind != 4 and not _folds(data, position, high):
                position += 1
                continue
            begin, value, special = position, np.uint64(0xCBF29CE484222325), False
            while position < high:
                byte = data[position]
                kind = classes[byte]
                if kind == 1 or kind == 2:
                    value = (value ^ np.uint64(byte | 32)) * np.uint64(0x100000001B3)
                    position += 1
                elif byte >= 192 and (_folds(data, position, high) or (kind == 4 and not _parts(data, position, high))):
                    special = special or _folds(data, position, high)
                    position += 1
                    while position < high and data[position] & 192 == 128:
                        position += 1
                elif (
                    kind == 3
                    and position > begin
                    and position + 1 < high
                    and _begins(data, position + 1, high, classes)
                ):
                    value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
                    position += 1
                else:
                    break
            if position == begin:  # a sign with the first byte of a letter
                position += 1
                continue
            if not special:
                if value == 0:
                    value = np.uint64(1)
                slot = value & mask
                while hashes[slot] != 0 and hashes[slot] != value:
                    slot = (slot + np.uint64(1)) & mask
                if hashes[slot] == 0 or (cases[slot] == 0 and classes[data[begin]] == 2):
                    continue
            start, end = begin, min(high, begin + reach)
            floor = out[count - 1, 2] if count > first else low
            while start > floor and classes[data[start - 1]] != 5:
                start -= 1
            end = max(end, floor)
            while end < high and classes[data[end]] != 5:
                end += 1
            if count > first and start <= floor:
                out[count - 1, 2] = end
            else:
                out[count, 0], out[count, 1], out[count, 2] = document, start, end
                count += 1
    return count


@kernel
def _folds(data: Bytes, position: int, high: int) -> bool:
    """A letter beyond ASCII that case folding turns into ASCII letters: ß ẞ ſ K ﬁ ...; its word is always looked at."""
    byte = data[position]
    if byte < 195 or position + 1 >= high:
        return False
    then = data[position + 1]
    return bool(
        (byte == 195 and then == 159)
        or (byte == 196 and then == 176)
        or (byte == 197 and (then == 137 or then == 191))
        or (byte == 199 and then == 176)
        or (byte == 225 and then == 186)
        or (byte == 226 and then == 132)
        or (byte == 239 and then == 172)
    )


@kernel
def _parts(data: Bytes, position: int, high: int) -> bool:
    """A sign whose first byte letters have too: multiplied by, divided by, Greek points, the marks of CJK."""
    byte = data[position]
    then = data[position + 1] if position + 1 < high else 0
    return bool(
        (byte == 195 and (then == 151 or then == 183))
        or (byte == 205 and then == 190)
        or (byte == 206 and then == 135)
        or (byte == 227 and then == 128)
        or byte == 194
        or (byte == 226 and then < 176)
        or (byte == 239 and then >= 188)
    )


@kernel
def _begins(data: Bytes, position: int, high: int, classes: Bytes) -> bool:
    """True when a letter stands here."""
    kind = classes[data[position]]
    if kind == 1 or kind == 2:
        return True
    return _folds(data, position, high) or (kind == 4 and not _parts(data, position, high))
