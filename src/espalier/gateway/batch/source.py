"""The input of a batch: a file of lines, reached by number without being held in memory. Knows no shape.

For a million lines: 16 bytes a line of where each lies, and for a moment 8 more to find names that are used twice.
"""

from __future__ import annotations

import hashlib
import mmap
from array import array
from pathlib import Path

import numpy as np


class Source:
    """Lines that hold more than blanks, numbered from 0. Use as a context manager, or `close` it."""

    def __init__(self, path: Path) -> None:
        self._starts, self._ends = array("Q"), array("Q")
        self._map: mmap.mmap | None = None
        if path.stat().st_size:
            with path.open("rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._find_lines(self._map)

    def __len__(self) -> int:
        return len(self._starts)

    def size(self, number: int) -> int:
        """Bytes of a line."""
        return self._ends[number] - self._starts[number]

    def read(self, number: int) -> bytes:
        """A line without its end."""
        return bytes(self._map[self._starts[number] : self._ends[number]]) if self._map is not None else b""

    def close(self) -> None:
        if self._map is not None:
            self._map.close()

    def _find_lines(self, text: mmap.mmap) -> None:
        start, size = 0, len(text)
        while start < size:
            end = text.find(b"\n", start)
            end = size if end < 0 else end
            # Only a short line can be blank in earnest; a long one of blanks is told as one that is not JSON.
            if end - start > 64 or text[start:end].strip():
                self._starts.append(start)
                self._ends.append(end)
            start = end + 1


class Names:
    """Finds names given twice among very many, by 64-bit digests: suspicions, until they are compared."""

    def __init__(self) -> None:
        self._digests = array("Q")
        self._numbers = array("Q")

    def add(self, name: str, number: int) -> None:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        self._digests.append(int.from_bytes(digest, "little"))
        self._numbers.append(number)

    def suspects(self) -> list[list[int]]:
        """Groups of line numbers, each ascending, whose names may be one and the same."""
        if not self._digests:
            return []
        digests, numbers = np.frombuffer(self._digests, np.uint64), np.frombuffer(self._numbers, np.uint64)
        order = np.lexsort((numbers, digests))
        same = np.flatnonzero(digests[order][1:] == digests[order][:-1])
        groups: list[list[int]] = []
        for place in same.tolist():
            one, other = int(numbers[order[place]]), int(numbers[order[place + 1]])
            if groups and groups[-1][-1] == one:
                groups[-1].append(other)
            else:
                groups.append([one, other])
        return groups
