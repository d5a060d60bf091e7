"""The words of texts, and what counts as the same text: hashes and digests of lower-cased words.

A word is a run of letters, digits, underscores and the marks on them (`\\w` of Unicode TR 18, annex C), in simple lower
case. In scripts written without spaces (Han, Kana, Thai ...) each character with its marks is a word. Everything else
(spaces, punctuation, symbols) only parts words. Knows texts; does not know documents.

Legend: n = texts, w = words of all texts, c = code points.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from espalier.data.kernels.buffers import view_texts

# Planes 0 to 3 hold every letter there is; what lies beyond parts words.
_CODE_POINTS = 0x40000
_SURROGATES = (0xD800, 0xE000)
_WORD_CATEGORIES = ("Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Nl", "No", "Pc")
_MARK_CATEGORIES = ("Mn", "Mc", "Me")
# Scripts without spaces between words: Thai and Lao, Tibetan, Myanmar, Khmer, New Tai Lue to Tai Tham, Kana, Bopomofo,
# Han, Yi, Javanese, Cham and Myanmar extensions, Tai Viet, compatibility ideographs, half-width Kana, Kana supplements.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x1AAF), (0x2E80, 0x2FDF),
    (0x3005, 0x3007), (0x3021, 0x312F), (0x31A0, 0x9FFF), (0xA000, 0xA4CF), (0xA980, 0xA9FF), (0xAA00, 0xAADF),
    (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF),
)  # fmt: skip
# Texts are read so many bytes at a time, which bounds the scratch space.
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Words:
    """The words of n texts: of text i `hashes[word_offsets[i]:word_offsets[i + 1]]`, and its normal form."""

    hashes: NDArray[np.uint64]  # (w,)
    word_offsets: NDArray[np.int64]  # (n + 1,)
    text: NDArray[np.uint8]  # every text's words, joined by one space
    text_offsets: NDArray[np.int64]  # (n + 1,)


def read_words(texts: pa.LargeStringArray) -> Iterator[Words]:
    """Consecutive stretches of the texts, about `_BLOCK_BYTES` each, as words."""
    data, offsets = view_texts(texts)
    first = 0
    while first < len(texts):
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK_BYTES, side="right")) - 1
        last = min(max(last, first + 1), len(texts))
        yield _read_block(data, offsets[first : last + 1])
        first = last


def hash_texts(texts: pa.LargeStringArray, read: Iterable[Words] | None = None) -> list[int]:
    """64 bits for each text that are equal for texts of the same words. `read`: their words, if at hand."""
    out = []
    for words in read_words(texts) if read is None else read:
        view = words.text.data
        out += [xxhash.xxh3_64_intdigest(view[start:end]) for start, end in pairwise(words.text_offsets.tolist())]
    return out


@functools.cache
def word_table() -> NDArray[np.uint32]:
    """For each code point its simple lower case, and its kind (`kernels.LETTER` ...) in the two highest bits. (c,)"""
    from espalier.data.dedup.kernels import ALONE, KIND_SHIFT, LETTER, MARK

    codes = np.arange(_CODE_POINTS, dtype=np.uint32)
    codes[slice(*_SURROGATES)] = 0
    every = codes.tobytes().decode("utf-32-le")
    category = np.frombuffer("".join(map(unicodedata.category, every)).encode(), "S2")
    lower = pc.utf8_lower(pa.array([every], pa.large_string()))[0].as_py()
    table = np.frombuffer(lower.encode("utf-32-le"), np.uint32).copy()
    kind = np.zeros(_CODE_POINTS, np.uint32)
    kind[np.isin(category, [name.encode() for name in _WORD_CATEGORIES])] = LETTER
    for first, last in _UNSPACED:
        inside = kind[first : last + 1]
        inside[inside == LETTER] = ALONE
    kind[np.isin(category, [name.encode() for name in _MARK_CATEGORIES])] = MARK
    table |= kind << KIND_SHIFT
    return table


def _read_block(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Words:
    from espalier.data.dedup import kernels

    size_bytes, rows = int(offsets[-1] - offsets[0]), len(offsets) - 1
    # A lower-case letter takes at most one byte more than its capital of two, and a character of an unspaced script,
    # three bytes or more, one space. A word takes two bytes with what parts it.
    text = np.empty(size_bytes + size_bytes // 2 + rows, np.uint8)
    hashes = np.empty(size_bytes // 2 + rows, np.uint64)
    text_offsets, word_offsets = np.zeros(rows + 1, np.int64), np.zeros(rows + 1, np.int64)
    kernels.read_words(data, offsets, word_table(), text, text_offsets, hashes, word_offsets)
    return Words(hashes[: word_offsets[-1]], word_offsets, text[: text_offsets[-1]], text_offsets)
