"""Cuts documents by bytes, tokens, sentences or headings into chunks: documents that keep their parent's origin.

Documents that hold a conversation or a table's row are left whole: their text is not what examples are made of.
Legend: n = rows of the batch, m = rows it becomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from espalier.core.types import Spec
from espalier.data.clean.cutting import Measure, Piece, cut_sections, cut_sentences, cut_words
from espalier.data.clean.rewriting import say_drops
from espalier.data.flow.batch import CONVERSATIONS, SCHEMA, SPAN, set_tags, tag_column
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.step import CleanStep
from espalier.data.kernels.buffers import make_texts, view_texts


class ChunkSpec(Spec):
    """Cut long documents into chunks."""

    step: Literal["chunk"] = "chunk"
    by: Literal["bytes", "tokens", "sentences", "headings"] = Field(
        "bytes",
        description="bytes: at the last paragraph end, line end or space that fits; tokens: the same, counted by the "
        "tokenizer; sentences: whole sentences; headings: sections of Markdown or reStructuredText, long ones cut",
    )
    size: int = Field(
        2000,
        ge=16,
        description="most bytes or tokens of a chunk; by sentences or headings: tokens, or characters without one",
    )
    overlap: int = Field(0, ge=0, description="how much of the chunk before is repeated, at most; in the same unit")
    min_size: int = Field(0, ge=0, description="a shorter rest, sentence or section joins its neighbour; same unit")
    tokenizer: str = Field("", description="tokenizer.json, or the model folder it is in; needed for tokens")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.overlap > self.size // 4:
            raise ValueError(f"overlap must be at most a quarter of size, {self.size // 4}")
        if self.min_size > self.size // 2:
            raise ValueError(f"min_size must be at most half of size, {self.size // 2}")
        if self.by == "tokens" and not self.tokenizer:
            raise ValueError("by: tokens needs `tokenizer`, the path of a tokenizer.json or of the folder it is in")
        return self


@dataclass(slots=True)
class Cuts:
    """The chunks of a column of n texts, in order."""

    parents: npt.NDArray[np.int64]  # (m,)
    texts: pa.LargeStringArray  # (m,)
    first_chars: npt.NDArray[np.int64]  # (m,) in the parent's text
    end_chars: npt.NDArray[np.int64]  # (m,)
    headings: pa.StringArray | None = None  # (m,) "Title > Section", null where there is none


@dataclass(frozen=True, slots=True)
class Chunker:
    """The prepared step. A chunk's id is `parent.k`, k from 1, and its tag `chunk` is k."""

    spec: ChunkSpec
    measure: Measure | None  # None: characters

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        whole = _find_whole(batch)
        return make_rows(batch, self.cut(batch, whole), whole)

    def cut(self, batch: pa.RecordBatch, whole: npt.NDArray[np.bool_]) -> Cuts:
        if self.spec.by == "bytes":
            return cut_bytes(batch.column("text"), self.spec, whole)
        formats = tag_column(batch, "format").to_pylist()
        rows = []
        for text, name, keep in zip(batch.column("text").to_pylist(), formats, whole.tolist(), strict=True):
            rows.append([Piece(0, len(text))] if keep else self._cut_text(text, name))
        return _list_cuts(batch.column("text"), rows)

    def _cut_text(self, text: str, name: str | None) -> list[Piece]:
        spec = self.spec
        if spec.by == "tokens":
            return cut_words(text, spec.size, spec.overlap, spec.min_size, self.measure)
        if spec.by == "sentences":
            return cut_sentences(text, spec.size, spec.overlap, spec.min_size, self.measure)
        return cut_sections(text, name or "", spec.size, spec.overlap, spec.min_size, self.measure)


def cut_bytes(texts: pa.LargeStringArray, spec: ChunkSpec, whole: npt.NDArray[np.bool_] | None = None) -> Cuts:
    """Chunks of at most `size` bytes of each row (n,), cut by the kernel; rows of `whole` (n,) are one chunk each."""
    from espalier.data.kernels.cutting import cut_rows, gather

    data, offsets = view_texts(texts)
    room = int((offsets[-1] - offsets[0]) // (spec.size // 4) + 2 * len(texts) + 1)
    made = np.empty((5, room), np.int64)
    keep = np.zeros(len(texts), np.bool_) if whole is None else whole
    m = cut_rows(data, offsets, keep, spec.size, spec.overlap, spec.min_size, *made)
    parents, starts, ends, first_chars, end_chars = made[:, :m]
    out, out_offsets = np.empty(int((ends - starts).sum()), np.uint8), np.zeros(m + 1, np.int64)
    gather(data, starts, ends, out, out_offsets)
    return Cuts(parents.copy(), make_texts(out, out_offsets), first_chars, end_chars)


def make_rows(batch: pa.RecordBatch, cuts: Cuts, whole: npt.NDArray[np.bool_]) -> Outcome:
    """The chunks as rows; those of `whole` (n,) as they were. Counts documents `cut`, and `chunks` made of all.

    A document of nothing but blanks is dropped: "blank: ...".
    """
    parents, n = cuts.parents, len(batch)
    per_row = np.bincount(parents, minlength=n)
    number = np.arange(len(parents)) - np.repeat(np.cumsum(per_row) - per_row, per_row) + 1
    left = whole[parents]
    numbers = pa.array(number, mask=left).cast(pa.string())
    same = [name for name in SCHEMA.names if name not in ("text", "spans")]  # texts are cut, not copied for each chunk
    columns = dict(zip(same, batch.select(same).take(pa.array(parents)).columns, strict=True))
    columns |= {"text": cuts.texts, "spans": _cut_spans(batch, cuts, left)}
    columns["id"] = pc.binary_join_element_wise(columns["id"], numbers, ".", null_handling="skip")
    made = pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    tags = {"chunk": numbers} | ({} if cuts.headings is None else {"headings": cuts.headings})
    counts = {"cut": int((per_row > 1).sum()), "chunks": len(parents)}
    blank = ["blank: there is no text to cut" if n == 0 else None for n in per_row.tolist()]
    outcome = say_drops(blank)
    outcome.batch, outcome.parents, outcome.counts = set_tags(made, tags), pa.array(parents, pa.int32()), counts
    return outcome


def _cut_spans(batch: pa.RecordBatch, cuts: Cuts, left: npt.NDArray[np.bool_]) -> pa.ListArray:
    """Where each chunk stands. (m,)

    Of a document on one page: offsets from its start, in its text as it stood when it was cut. Of one over several
    pages: the pages the chunk is on, as long as the text has its page breaks; else all of them. Rows of `left` (m,)
    keep theirs.
    """
    column = batch.column("spans")
    counts = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if (counts == 1).all():
        found = column.flatten().take(pa.array(cuts.parents))
        fields = dict(zip(found.type.names, found.flatten(), strict=True))
        base, end = (np.asarray(fields[name]) for name in ("start", "end"))
        fields["start"] = pa.array(np.where(left, base, base + cuts.first_chars))
        fields["end"] = pa.array(np.where(left, end, base + cuts.end_chars))
        cut = pa.StructArray.from_arrays(list(fields.values()), fields=list(SPAN))
        return pa.ListArray.from_arrays(pa.array(np.arange(len(cuts.parents) + 1), pa.int32()), cut)
    spans, texts = column.to_pylist(), batch.column("text").to_pylist()
    rows = []
    places = zip(cuts.parents.tolist(), cuts.first_chars.tolist(), cuts.end_chars.tolist(), left.tolist(), strict=True)
    for parent, first, last, keep in places:
        rows.append(spans[parent] if keep else _cut_pages(spans[parent], texts[parent], first, last))
    return pa.array(rows, pa.list_(SPAN))


def _cut_pages(spans: list[dict[str, object]], text: str, first: int, end: int) -> list[dict[str, object]]:
    pages = text.split("\f")
    if len(pages) != len(spans):
        return spans
    found, start = [], 0
    for span, page in zip(spans, pages, strict=True):
        until = start + len(page)
        if first < until and end > start:
            base = int(str(span["start"])) - start
            found.append({**span, "start": base + max(first, start), "end": base + min(end, until)})
        start = until + 1
    return found or spans


def _find_whole(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    whole = pc.not_equal(batch.column("row"), "").to_numpy(zero_copy_only=False)
    for name in CONVERSATIONS:
        whole = whole | (pc.list_value_length(batch.column(name)).to_numpy(zero_copy_only=False) > 0)
    return np.asarray(whole, np.bool_)


def _list_cuts(texts: pa.LargeStringArray, rows: list[list[Piece]]) -> Cuts:
    pieces = [piece for row in rows for piece in row]
    parents = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    cut = [text[piece.start : piece.end] for text, row in zip(texts.to_pylist(), rows, strict=True) for piece in row]
    return Cuts(
        parents,
        pa.array(cut, pa.large_string()),
        np.array([piece.start for piece in pieces], np.int64),
        np.array([piece.end for piece in pieces], np.int64),
        pa.array([piece.heading or None for piece in pieces], pa.string()),
    )


def prepare(spec: ChunkSpec, folder: Path) -> Chunker:
    """Ready to run; the tokenizer's path starts at `folder`. Raises NotFound or InvalidInput for a tokenizer's file."""
    if not spec.tokenizer:
        return Chunker(spec, None)
    from espalier.data.clean.tokenise import load_measure

    return Chunker(spec, load_measure(folder / spec.tokenizer))


STEP = CleanStep("chunk", 1, ChunkSpec, prepare, files=("tokenizer",))
