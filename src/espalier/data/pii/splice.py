"""Puts changed rows into a column of texts: what did not change is copied in long stretches, or not at all.

Legend: n = rows, b = bytes of all texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from espalier.data.kernels.buffers import make_texts, view_texts

# Further from a replacement than this and the next white space no rule sees it: a quoted value, its name, its context.
REACH_BYTES = 256


@dataclass(frozen=True, slots=True)
class Edited:
    """A text after replacements, and where these stand in it."""

    text: bytes
    spans: Sequence[tuple[int, int]]

    def surroundings(self) -> Iterator[bytes]:
        """The replacements with what stands around them, up to white space; neighbours together."""
        low = high = 0
        for start, end in self.spans:
            if start - REACH_BYTES > high:
                if high:
                    yield self.text[self._left(low) : self._right(high)]
                low = start - REACH_BYTES
            high = end + REACH_BYTES
        yield self.text[self._left(low) : self._right(high)]

    def _left(self, at: int) -> int:
        while at > 0 and self.text[at - 1] not in b" \n\t\r":
            at -= 1
        return max(0, at)

    def _right(self, at: int) -> int:
        while at < len(self.text) and self.text[at] not in b" \n\t\r":
            at += 1
        return at


def to_column(texts: Sequence[bytes]) -> pa.LargeStringArray:
    """UTF-8 texts as a column (n,)."""
    return pa.array(texts, pa.large_binary()).cast(pa.large_string())


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
