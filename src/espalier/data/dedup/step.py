"""The step `dedup`: keeps the first of texts that are the same or nearly so; the reason names the one that was kept.

"First" is by position, and positions follow the sorted source uris, so the outcome does not depend on the file system,
on how the corpus is cut into shards, or on the number of workers. Rows of earlier dataset versions (`against`) count as
standing before all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from espalier.core.types import Spec
from espalier.data.dedup.exact import read_exact
from espalier.data.dedup.known import Chained, open_known, sketch_known
from espalier.data.dedup.plan import Search, read_edges, split_pairs
from espalier.data.dedup.search import find_duplicates
from espalier.data.dedup.sets import open_sets
from espalier.data.dedup.sketch import sketch_texts
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.spread import Spread, run_here
from espalier.data.flow.step import CleanStep, Shards

_EXACT, _NEAR = "exact duplicate of ", "near duplicate of "


class DedupSpec(Spec):
    """Drop exact and near duplicates."""

    step: Literal["dedup"] = "dedup"
    near: float = Field(0.8, gt=0, le=1, description="Jaccard index from which two texts count as one; 1 = exact only")
    shingle_words: int = Field(3, ge=1, le=20, description="words a shingle is made of")
    against: tuple[str, ...] = Field(
        (), description="earlier dataset versions, dataset:NAME@vN or a folder: what they hold is dropped here"
    )


class Deduplication:
    """The survey behind `dedup`."""

    def __init__(self, spec: DedupSpec, folder: Path) -> None:
        self._spec = spec
        self._against = tuple(folder / path for path in spec.against)

    def sketch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Digest and band keys of each row; see `sketch.sketch_texts`."""
        return sketch_texts(batch.column("text"), self._spec.near, self._spec.shingle_words)

    def decide(
        self, sketches: Sequence[pa.RecordBatch], shards: Shards, work: Path, spread: Spread = run_here
    ) -> Iterator[pa.RecordBatch]:
        """For each shard a column `reason` (n,), null where a row is kept. Raises NotFound, InvalidInput."""
        spec = self._spec
        known = open_known(self._against)
        known_sketches = sketch_known(known, spec.near, spec.shingle_words, work, spread)
        search = Search(
            Chained(known_sketches, sketches),
            Chained(known, shards),
            work,
            spec.near,
            spec.shingle_words,
            sum(len(sketch) for sketch in known_sketches),
        )
        kept = find_duplicates(search, spread)
        for shard in range(len(known), len(search.shards)):
            yield pa.RecordBatch.from_pydict({"reason": explain_drops(search, shard, kept)})

    def apply_decision(self, batch: pa.RecordBatch, decision: pa.RecordBatch) -> Outcome:
        """Counts `exact` and `near` duplicates."""
        reasons = decision.column("reason")
        counts = {
            name: pc.sum(pc.starts_with(reasons, kind)).as_py() or 0
            for name, kind in (("exact", _EXACT), ("near", _NEAR))
        }
        return Outcome(reasons=reasons, counts=counts)


def explain_drops(search: Search, shard: int, kept: NDArray[np.uint8]) -> pa.StringArray:
    """Why each row of a shard is dropped, naming the row it duplicates; null where it is kept. (n,)"""
    start, end = search.starts[shard : shard + 2]
    reasons: list[str | None] = [None] * int(end - start)
    later, first = split_pairs(read_exact(search, shard))
    for row, name in zip((later - start).tolist(), name_rows(search, first), strict=True):
        reasons[row] = f"{_EXACT}{name}"
    edges = read_edges(search, shard)
    later, earlier = split_pairs(edges["pair"])
    counting = kept[earlier] != 0
    later, earlier, jaccards = later[counting], earlier[counting], edges["jaccard"][counting]
    rows, places = np.unique(later, return_index=True)
    for row, name, place in zip((rows - start).tolist(), name_rows(search, earlier[places]), places, strict=True):
        reasons[row] = f"{_NEAR}{name}, Jaccard {jaccards[place]:.2f}"
    return pa.array(reasons, pa.string())


def name_rows(search: Search, rows: NDArray[np.int64]) -> list[str]:
    """Id and uri of rows of the corpus that stand in a pair. (m,)"""
    names = [""] * len(rows)
    shards = np.searchsorted(search.starts, rows, side="right") - 1
    for shard in np.unique(shards):
        chosen = np.flatnonzero(shards == shard)
        sets = open_sets(search, int(shard))
        found = sets.names.take(pa.array(sets.find(rows[chosen])))
        ids, uris = found.column("id").to_pylist(), found.column("uri").to_pylist()
        for place, row_id, uri in zip(chosen, ids, uris, strict=True):
            names[place] = f"{row_id} ({uri})"
    return names


STEP = CleanStep("dedup", 2, DedupSpec, Deduplication, files=("against",))
