"""Scans a column of texts: numba finds the windows where something could be, the rules read those and nothing else.

No text is decoded, and one without a trigger is not looked at again. A small column is read whole: it gives the same,
and is done before numba is imported.

Legend: n = texts, w = windows, b = bytes of all texts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from espalier.data.kernels.buffers import Bytes, Offsets, is_worth_compiling, view_texts
from espalier.data.pii.finding import Finding
from espalier.data.pii.rules import Ruleset

_BETWEEN = b"\n\0\n"  # no pattern matches across it, no context is looked for beyond it


def scan_column(texts: pa.LargeStringArray, rules: Ruleset) -> Iterator[tuple[int, list[Finding]]]:
    """(row, findings) of the rows that have any, in order. Positions are bytes from the row's beginning."""
    if len(texts) == 0:
        return
    data, edges = view_texts(texts)
    urls = "URL" in rules.kinds
    spans = find_windows(data, edges, urls=urls) if is_worth_compiling(texts) else whole(edges)
    yield from scan_windows(data, edges, spans, rules)


def whole(edges: Offsets) -> npt.NDArray[np.int64]:
    """(n, 3): every text as one window."""
    return np.stack([np.arange(len(edges) - 1), edges[:-1], edges[1:]], axis=1)


def find_windows(data: Bytes, edges: Offsets, *, urls: bool = False) -> npt.NDArray[np.int64]:
    """(w, 3): text, start, end in `data`, in order and disjoint; every match of every rule lies in one."""
    from espalier.data.pii import triggers

    # Windows do not touch, and the smallest (`a@b`) has three bytes.
    held = np.empty(((int(edges[-1] - edges[0]) >> 2) + 2 * len(edges), 3), np.int64)
    count = triggers.find_windows(data, np.ascontiguousarray(edges), urls, triggers.CLASSES, held)
    return held[:count]


def scan_windows(
    data: Bytes, edges: Offsets, windows: npt.NDArray[np.int64], rules: Ruleset
) -> Iterator[tuple[int, list[Finding]]]:
    """(row, findings) of what the rules find in windows (w, 3)."""
    view, spans = memoryview(data.data), windows.tolist()
    joined = _BETWEEN + _BETWEEN.join(bytes(view[start:end]) for _, start, end in spans) + _BETWEEN
    sizes = windows[:, 2] - windows[:, 1] + len(_BETWEEN)
    begins = np.cumsum(sizes) - sizes + len(_BETWEEN)  # of each window in `joined`
    shifts = (windows[:, 1] - edges[windows[:, 0]] - begins).tolist()
    starts = begins.tolist()
    row, held, at = -1, list[Finding](), 0
    for found in rules.scan(joined):
        while at + 1 < len(starts) and starts[at + 1] <= found.start:
            at += 1
        document, shift = spans[at][0], shifts[at]
        if document != row:
            if held:
                yield row, held
            row, held = document, []
        held.append(Finding(found.start + shift, found.end + shift, found.kind, found.rule))
    if held:
        yield row, held
