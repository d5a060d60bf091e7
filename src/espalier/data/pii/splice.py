"""Puts changed rows into a column of texts: what did not change is copied in long stretches, or not at all.

Legend: n = rows, b = bytes of all texts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from espalier.data.kernels.buffers import make_texts, view_texts


def splice(texts: pa.LargeStringArray, changed: Mapping[int, bytes]) -> pa.LargeStringArray:
    """The column (n,) with the rows of `changed` replaced by UTF-8; the column itself when there are none."""
    if not changed:
        return texts
    data, edges = view_texts(texts)
    view = memoryview(data.data)
    parts: list[bytes | memoryview] = []
    last = int(edges[0])
    sizes = np.diff(edges)
    for row in sorted(changed):
        start, end = int(edges[row]), int(edges[row + 1])
        parts += [view[last:start], changed[row]]
        last = end
        sizes[row] = len(changed[row])
    parts.append(view[last : int(edges[-1])])
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return make_texts(np.frombuffer(b"".join(parts), np.uint8), offsets)
