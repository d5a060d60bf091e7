"""Arrow columns of texts and of lists as NumPy arrays, and back. Knows no tokenizer.

Legend: d = rows, t = values of all rows' lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ids: TypeAlias = npt.NDArray[np.int32]
Counts: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Values: TypeAlias = npt.NDArray[Any]


def as_large(texts: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    """The column as one array of large strings."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    return array if pa.types.is_large_string(array.type) else array.cast(pa.large_string())


def view_texts(texts: pa.LargeStringArray) -> tuple[Bytes, Counts]:
    """The bytes of a column without nulls, and offsets into them (d + 1,). Views that cannot be written to."""
    _, places, content = texts.buffers()
    offsets: Counts = np.zeros(1, np.int64)
    if places is not None and len(texts):
        offsets = np.frombuffer(places, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(content or b"", np.uint8)
    offsets.flags.writeable = data.flags.writeable = False  # one type, whoever made the buffers, for the kernels
    return data, offsets


def make_lists(texts: pa.LargeStringArray, values: Values, counts: Counts) -> pa.LargeListArray:
    """A list for each text, null for null: values (t,) dealt out by counts (d,)."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int64())
    mask = texts.is_null() if texts.null_count else None
    return pa.LargeListArray.from_arrays(offsets, pa.array(values), mask=mask)


def iterate_blocks(offsets: Counts, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of texts of about so many bytes each, never less than one text."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + size_bytes, side="right")) - 1
        last = min(max(last, first + 1), len(offsets) - 1)
        yield first, last
        first = last


def insert_lists(values: Values, counts: Counts, where: Counts, others: Sequence[Values]) -> tuple[Values, Counts]:
    """Values (t,) of all rows, those of rows `where` (which had none) taken from `others`; and the new counts (d,)."""
    if not len(where):
        return values, counts
    ends = np.cumsum(counts)
    counts = counts.copy()
    counts[where] = [len(other) for other in others]
    parts = []
    done = 0
    for row, other in zip(where.tolist(), others, strict=True):
        parts += [values[done : ends[row]], other.astype(values.dtype)]
        done = int(ends[row])
    return np.concatenate([*parts, values[done:]]), counts


def ends_in_bytes(text: str, ends: Sequence[int]) -> Counts:
    """Ends in characters -> ends in bytes, none before the one before it."""
    sizes = np.fromiter((len(one.encode()) for one in text), np.int64, len(text))
    before = np.concatenate([[0], np.cumsum(sizes)])
    found: Counts = before[np.array(ends, np.int64)]
    return np.maximum.accumulate(found) if len(found) else found
