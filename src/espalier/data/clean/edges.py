"""The lines at the edges of pages, as hashes: what finding boilerplate needs of a corpus, and no more.

A batch's edges are a matrix of a few dozen numbers a page; all are looked at one batch at a time, so memory does not
grow with the corpus. Knows no text but to hash it.

Legend: p = pages of a batch, w = lines looked at on each edge: one more than may be peeled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

PAGE_BREAK = "\f"
Hashes = npt.NDArray[np.uint64]
# In place of a line's hash: what is always peeled (page numbers, rules), and what never is.
DECORATION, CONTENT = 0, 1
_FIELD = re.compile(r"[\w#][\w .#/-]{0,30}: .*")
_PAGE_NUMBER = re.compile(r"(page|seite|p\.|pg\.)? ?-? ?\d{1,4}( ?(of|/|von) ?\d{1,4})? ?-?", re.IGNORECASE)
_WORD = re.compile(r"\w")
_BUCKETS = 1 << 22


def is_decoration(line: str) -> bool:
    """Whether a line (stripped) says nothing: no word on it, or a page's number alone."""
    return not _WORD.search(line) or bool(_PAGE_NUMBER.fullmatch(line))


def may_be_boilerplate(line: str, min_chars: int) -> bool:
    """Whether a line (stripped) is long enough, and no `name: value`."""
    return len(line) >= min_chars and not _FIELD.fullmatch(line)


def hash_line(form: str, line: str) -> int:
    """A stripped line of a document of one format; above the two special numbers."""
    return xxhash.xxh3_64_intdigest(f"{form}\0{line}".encode()) | 2


@dataclass(slots=True)
class Edges:
    """The edges of a batch's pages. A page with fewer lines is filled up with CONTENT."""

    documents: npt.NDArray[np.int64]  # (p,) row each page belongs to
    lines: npt.NDArray[np.int64]  # (p,) lines on it that are not blank
    heads: Hashes  # (p, w) from the top down
    tails: Hashes  # (p, w) from the bottom up
    enough: npt.NDArray[np.int64]  # (p,) documents that must share a line of the page's format

    def expose(self, common: Hashes) -> tuple[Hashes, npt.NDArray[np.int64]]:
        """The lines left at the edges when `common` ones are peeled, each with its document; as pairs, none twice."""
        peelable = self.heads.shape[1] - 1
        top = np.minimum(_count_leading(self.heads[:, :peelable], common), self.lines)
        bottom = np.minimum(_count_leading(self.tails[:, :peelable], common), self.lines - top)
        left = self.lines > top + bottom
        page = np.flatnonzero(left)
        lines = np.concatenate([self.heads[page, top[left]], self.tails[page, bottom[left]]])
        return _pair(lines, np.tile(self.documents[page], 2))

    def pair_all(self) -> tuple[Hashes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """All lines of the edges, the document of each, and how many must share it; no pair twice."""
        width = 2 * self.heads.shape[1]
        lines = np.concatenate([self.heads, self.tails], axis=1).ravel()
        documents = np.repeat(self.documents, width)
        of_document = np.zeros(max(self.documents, default=-1) + 1, np.int64)
        of_document[self.documents] = self.enough
        lines, documents = _pair(lines, documents)
        return lines, documents, of_document[documents]


def sketch_edges(texts: Sequence[str], forms: Sequence[str], edge_lines: int, min_chars: int) -> pa.RecordBatch:
    """One row a page: format, document, whether it is the document's first, lines, and the hashes of both edges."""
    width = edge_lines + 1
    rows: list[tuple[str, int, bool, int, list[int]]] = []
    for number, (text, form) in enumerate(zip(texts, forms, strict=True)):
        for place, page in enumerate(text.split(PAGE_BREAK)):
            lines = [line.strip() for line in page.split("\n")]
            lines = [line for line in lines if line]
            ends = (lines[:width], lines[: -width - 1 : -1])
            hashes = [_encode(end, form, min_chars) + [CONTENT] * (width - len(end)) for end in ends]
            rows.append((form, number, place == 0, len(lines), hashes[0] + hashes[1]))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    types = [pa.string(), pa.int64(), pa.bool_(), pa.int64(), pa.list_(pa.uint64(), 2 * width)]
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, ["format", "document", "first", "lines", "edges"])


def read_edges(sketch: pa.RecordBatch, enough: dict[str, int]) -> Edges:
    """The edges in a sketch of `sketch_edges`."""
    width = sketch.schema.field("edges").type.list_size // 2
    both = np.asarray(sketch.column("edges").flatten()).reshape(len(sketch), 2, width)
    needed = np.array([enough[form] for form in sketch.column("format").to_pylist()], np.int64)
    documents, lines = np.asarray(sketch.column("document")), np.asarray(sketch.column("lines"))
    return Edges(documents, lines, both[:, 0], both[:, 1], needed)


def find_candidates(edges: Iterable[Edges]) -> Hashes:
    """The lines that may stand at the edges of enough documents: all that do, and hardly any more.

    `edges` is gone through twice. Counted in
    buckets (a count-min sketch of one row: Cormode and Muthukrishnan 2005), which share a fixed memory.
    """
    buckets = np.zeros(_BUCKETS, np.int64)
    for batch in edges:
        lines, _, _ = batch.pair_all()
        np.add.at(buckets, (lines % np.uint64(_BUCKETS)).astype(np.int64), 1)
    found = [np.zeros(0, np.uint64)]
    for batch in edges:
        lines, _, enough = batch.pair_all()
        found.append(np.unique(lines[buckets[(lines % np.uint64(_BUCKETS)).astype(np.int64)] >= enough]))
    return np.unique(np.concatenate(found))


def _encode(lines: list[str], form: str, min_chars: int) -> list[int]:
    return [
        DECORATION if is_decoration(line) else hash_line(form, line) if may_be_boilerplate(line, min_chars) else CONTENT
        for line in lines
    ]


def _count_leading(lines: Hashes, common: Hashes) -> npt.NDArray[np.int64]:
    """How many lines of each row (p, w) are peeled before the first that is not."""
    peeled = (lines == DECORATION) | np.isin(lines, common)
    counted: npt.NDArray[np.int64] = np.cumprod(peeled, axis=1, dtype=np.int64).sum(axis=1)
    return counted


def _pair(lines: Hashes, documents: npt.NDArray[np.int64]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    real = lines > CONTENT
    lines, documents = lines[real], documents[real]
    order = np.lexsort((documents, lines))
    lines, documents = lines[order], documents[order]
    new = np.ones(len(lines), np.bool_)
    new[1:] = (lines[1:] != lines[:-1]) | (documents[1:] != documents[:-1])
    return lines[new], documents[new]
