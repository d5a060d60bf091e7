"""Arrow text columns as NumPy arrays and back, without copying. Imports no numba, and knows no kernel.

Legend: n = rows, B = bytes of the column's values buffer.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes: TypeAlias = npt.NDArray[np.uint8]
Offsets: TypeAlias = npt.NDArray[np.int64]
# Under so much text, plain Python is done before numba is imported (0.4 s at 20 MB/s).
COMPILE_FROM_BYTES = 4 << 20


def view_texts(texts: pa.LargeStringArray) -> tuple[Bytes, Offsets]:
    """The values buffer (B,) and the offsets into it (n + 1,); row i is data[offsets[i]:offsets[i + 1]].

    A sliced array shares the whole buffer, so offsets[0] may be above 0.
    """
    _, offsets, data = texts.buffers()
    if len(texts) == 0 or offsets is None:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    view = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return (np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)), view


def make_texts(data: Bytes, offsets: Offsets) -> pa.LargeStringArray:
    """A column over `data` (B,) cut at `offsets` (n + 1,); neither is copied."""
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def count_bytes(texts: pa.LargeStringArray) -> int:
    """Bytes of UTF-8 in all rows."""
    _, offsets = view_texts(texts)
    return int(offsets[-1] - offsets[0])


def is_worth_compiling(texts: pa.LargeStringArray) -> bool:
    """Whether a kernel would be faster than plain Python, given that both give the same."""
    return "numba" in sys.modules or count_bytes(texts) >= COMPILE_FROM_BYTES


def fill(texts: pa.LargeStringArray, mask: npt.NDArray[np.bool_], values: list[Any]) -> pa.LargeStringArray:
    """The column (n,) with the rows of `mask` (n,) replaced by `values`, in order."""
    import pyarrow.compute as pc

    return pc.replace_with_mask(texts, pa.array(mask), pa.array(values, pa.large_string()))
