"""Which of some texts are alike: the search of `dedup` for a list of texts that is in memory.

Knows texts only; what follows from likeness is for whoever asks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from espalier.data.dedup.exact import read_exact
from espalier.data.dedup.plan import Search, read_edges, split_pairs
from espalier.data.dedup.search import find_duplicates
from espalier.data.dedup.sketch import sketch_texts
from espalier.data.dedup.words import hash_texts

SHINGLE_WORDS = 3


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts by their positions, `first < second`, and their Jaccard index."""

    first: int
    second: int
    jaccard: float


def hash_text(text: str) -> int:
    """64 bits that are equal for texts of the same words."""
    return hash_texts(pa.array([text], pa.large_string()))[0]


def find_pairs(texts: Sequence[str], near: float) -> list[Pair]:
    """Pairs with a Jaccard index of at least `near`, verified, sorted by position.

    Of texts with the same words each is paired with the first, and only the first with others. See `dedup.search` for
    what is not compared where very many texts follow one template.
    """
    column = pa.array(texts, pa.large_string())
    batch = pa.RecordBatch.from_pydict(
        {"id": pa.nulls(len(texts), pa.string()), "text": column, "uri": pa.nulls(len(texts), pa.string())}
    )
    with tempfile.TemporaryDirectory(prefix="espalier-near-") as work:
        sketch = sketch_texts(column, near, SHINGLE_WORDS)
        search = Search([sketch], [batch], Path(work), near, SHINGLE_WORDS)
        find_duplicates(search)
        exact, edges = read_exact(search, 0), read_edges(search, 0)
    jaccards = np.concatenate([np.ones(len(exact)), edges["jaccard"]])
    later, earlier = split_pairs(np.concatenate([exact, edges["pair"]]))
    order = np.lexsort((later, earlier))
    return [Pair(int(earlier[at]), int(later[at]), float(jaccards[at])) for at in order]
