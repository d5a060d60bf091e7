"""Footers, disclaimers and navigation: lines that stand at the edge of many documents of the same format.

Driven by the data alone: no list of phrases. Only edges are peeled (of a document, and of each of its pages), and
lines that look like `name: value` are never counted, so that a value which many documents share is not mistaken for
decoration.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from espalier.core.types import Spec
from espalier.data.clean.edges import (
    PAGE_BREAK,
    Edges,
    Hashes,
    find_candidates,
    hash_line,
    is_decoration,
    read_edges,
    sketch_edges,
)
from espalier.data.clean.rewriting import say_changes
from espalier.data.flow.batch import tag_column
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.spread import Spread
from espalier.data.flow.step import CleanStep, Shards


class BoilerplateSpec(Spec):
    """Peel off edge lines that many documents share."""

    step: Literal["boilerplate"] = "boilerplate"
    min_documents: int = Field(8, ge=2, description="boilerplate begins or ends a page of at least so many documents")
    min_share: float = Field(0.15, gt=0, le=1, description="... and of this share of the documents of its format")
    min_edge: float = Field(
        0.8, gt=0, le=1, description="a line that stands inside more often than this allows is kept"
    )
    min_chars: int = Field(16, ge=1, description="shorter lines are kept, but for page numbers and rules")
    edge_lines: int = Field(12, ge=1, description="most lines to peel from an edge")


@dataclass(frozen=True, slots=True)
class Boilerplate:
    """The prepared survey: edges of pages -> the common lines -> texts without them.

    Counts the `changed` documents, and once for the corpus the distinct `lines`.
    """

    spec: BoilerplateSpec

    def sketch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        spec = self.spec
        return sketch_edges(batch.column("text").to_pylist(), _formats(batch), spec.edge_lines, spec.min_chars)

    def decide(
        self, sketches: Sequence[pa.RecordBatch], shards: Shards, work: Path, spread: Spread
    ) -> Iterator[pa.RecordBatch]:
        common = find_common(EdgeBook(sketches, self.spec), shards, self.spec, spread)
        for shard in range(len(shards)):
            told = pa.array([shard == 0] * len(common), pa.bool_())  # so that the sum over shards counts a line once
            yield pa.RecordBatch.from_arrays([pa.array(common), told], ["line", "told"])

    def apply_decision(self, batch: pa.RecordBatch, decision: pa.RecordBatch) -> Outcome:
        common = frozenset(decision.column("line").to_pylist())
        texts = batch.column("text").to_pylist()
        peeled = [
            peel_text(text, form, common, self.spec.edge_lines)
            for text, form in zip(texts, _formats(batch), strict=True)
        ]
        outcome = say_changes(batch, pa.array(peeled, pa.large_string()))
        outcome.counts["lines"] = pc.sum(decision.column("told"), min_count=0).as_py()
        return outcome


class EdgeBook:
    """The edges of all pages, a batch at a time, however often they are gone through."""

    def __init__(self, sketches: Sequence[pa.RecordBatch], spec: BoilerplateSpec) -> None:
        self._sketches = sketches
        documents: Counter[str] = Counter()
        for sketch in sketches:
            documents.update(sketch.filter(sketch.column("first")).column("format").to_pylist())
        self._enough = {
            form: max(spec.min_documents, math.ceil(spec.min_share * count)) for form, count in documents.items()
        }

    def __iter__(self) -> Iterator[Edges]:
        return (read_edges(sketch, self._enough) for sketch in self._sketches)


def find_common(book: EdgeBook, shards: Shards, spec: BoilerplateSpec, spread: Spread) -> Hashes:
    """The lines that begin or end pages in enough documents, and hardly ever stand elsewhere; in order.

    Found from the outside in: what stands under a found line is at the edge in the next round.
    """
    candidates = find_candidates(book)
    common = np.zeros(0, np.uint64)
    if len(candidates) == 0:
        return common
    least = np.zeros(len(candidates), np.float64)
    for edges in book:
        lines, _, enough = edges.pair_all()
        known = np.isin(lines, candidates)
        least[np.searchsorted(candidates, lines[known])] = enough[known]
    tasks = ((shards, shard, candidates.tobytes()) for shard in range(len(shards)))
    held = sum(spread(count_holding, tasks), start=np.zeros(len(candidates), np.int64))
    least = np.maximum(least, spec.min_edge * held)
    for _ in range(spec.edge_lines):
        at_edge = np.zeros(len(candidates), np.int64)
        for edges in book:
            lines, _ = edges.expose(common)
            lines = lines[np.isin(lines, candidates)]
            at_edge += np.bincount(np.searchsorted(candidates, lines), minlength=len(candidates))
        found = np.union1d(common, candidates[at_edge >= least])
        if len(found) == len(common):
            break
        common = found
    return common


def count_holding(task: tuple[Shards, int, bytes]) -> np.ndarray:
    """How many documents of a shard hold each candidate line, wherever it stands. (c,) for the candidates' bytes."""
    shards, shard, packed = task
    candidates = np.frombuffer(packed, np.uint64)
    place = {line: index for index, line in enumerate(candidates.tolist())}
    held = np.zeros(len(candidates), np.int64)
    batch = shards[shard]
    for text, form in zip(batch.column("text").to_pylist(), _formats(batch), strict=True):
        lines = {line.strip() for page in text.split(PAGE_BREAK) for line in page.split("\n")}
        for line in lines:
            index = place.get(hash_line(form, line))
            if index is not None:
                held[index] += 1
    return held


def peel_text(text: str, form: str, common: frozenset[int], edge_lines: int) -> str:
    """The text without its pages' boilerplate edges; page breaks become line ends. Never peels to nothing."""

    def goes(line: str) -> bool:
        return is_decoration(line) or (bool(common) and hash_line(form, line) in common)

    pages = []
    for page in text.split(PAGE_BREAK):
        lines = page.split("\n")
        start = _count_peeled(lines, edge_lines, goes)
        end = len(lines) - _count_peeled(lines[start:][::-1], edge_lines, goes)
        pages.append("\n".join(lines[start:end]))
    return "\n".join(page for page in pages if page) or text


def _count_peeled(lines: list[str], edge_lines: int, goes: Callable[[str], bool]) -> int:
    """Lines to peel from the front: blank ones, and at most `edge_lines` of those that go."""
    peeled = 0
    for count, line in enumerate(map(str.strip, lines)):
        if line and (peeled == edge_lines or not goes(line)):
            return count
        peeled += bool(line)
    return len(lines)


def _formats(batch: pa.RecordBatch) -> list[str]:
    formats: list[str] = pc.fill_null(tag_column(batch, "format"), "").to_pylist()
    return formats


def prepare(spec: BoilerplateSpec, folder: Path) -> Boilerplate:
    """Ready to run; names no file."""
    return Boilerplate(spec)


STEP = CleanStep("boilerplate", 2, BoilerplateSpec, prepare)
