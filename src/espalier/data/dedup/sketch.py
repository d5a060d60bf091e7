"""What is kept of a text to find its duplicates: a digest of its words and its band keys, of fixed size.

Legend: n = texts, b = bands.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from espalier.data.dedup.bands import choose_banding
from espalier.data.dedup.words import Words, read_words

HIGH, LOW = "digest_high", "digest_low"


def sketch_texts(
    texts: pa.LargeStringArray, near: float, shingle_words: int, read: Iterable[Words] | None = None
) -> pa.RecordBatch:
    """Digests and band keys (`band_0` ...) of n texts; at `near` 1 there are no bands. `read`: their words, if at hand.

    The digest is xxh3_128 of the words, so equal where the words are; of a text without words, of its bytes. A band key
    of 0 says that there are no words.
    """
    banding = choose_banding(near)
    digests = np.empty((len(texts), 2), np.uint64)
    keys = np.empty((banding.count if near < 1 else 0, len(texts)), np.uint64)
    at = 0
    for words in read_words(texts) if read is None else read:
        rows = len(words.word_offsets) - 1
        digests[at : at + rows] = _digest(words.text, words.text_offsets, texts, at)
        if near < 1:
            keys[:, at : at + rows] = banding.sign(words, shingle_words)
        at += rows
    columns = {HIGH: digests[:, 0], LOW: digests[:, 1], **{band_name(band): row for band, row in enumerate(keys)}}
    return pa.RecordBatch.from_pydict({name: pa.array(column) for name, column in columns.items()})


def band_name(band: int) -> str:
    """The column of one band's keys."""
    return f"band_{band}"


def count_bands(sketch: pa.RecordBatch) -> int:
    """How many bands a sketch has."""
    return len(sketch.schema) - 2


def _digest(
    text: NDArray[np.uint8], bounds: NDArray[np.int64], texts: pa.LargeStringArray, first: int
) -> NDArray[np.uint64]:
    """Digests of a stretch of `texts` from row `first` on, of which `text` holds the normal forms. (n, 2)"""
    view = text.data
    made = []
    for row, (start, end) in enumerate(pairwise(bounds.tolist())):
        normal = view[start:end] if end > start else b"\0" + texts[first + row].as_py().encode()
        made.append(xxhash.xxh3_128_digest(normal))
    return np.frombuffer(b"".join(made), ">u8").reshape(-1, 2)
