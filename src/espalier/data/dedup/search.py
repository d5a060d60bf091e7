"""Finds which rows of a corpus are duplicates of which, in memory that does not grow with its texts.

1. Rows with equal digests are exact duplicates of the first of them (`exact`).
2. Each band sorts its keys; rows with equal keys are candidates (`candidates`).
3. What candidates' shingles are is written down, one pass over the shards (`sets`).
4. Their true Jaccard index is measured (`verify`); pairs that reach `near` are edges.
5. Rows are judged in order: one is dropped where an earlier row is kept and they share an edge (`choose_kept`).

A bucket of many rows (a template that half of the corpus follows) would have a candidate for each pair of its rows. So
in a bucket of more than SMALL rows only the first few are paired with the others, and steps 2 to 5 are repeated with
what is still kept and more leaders, until nothing is found. What that guarantees: no row is dropped unverified; every
pair of a bucket of up to SMALL rows is compared; and of a larger bucket every kept row has been compared with the first
LEADERS[-1] kept ones.

Everything but a few bytes a row lies in files under the plan's folder. The result depends neither on how the corpus is
cut into shards nor on how many workers there are.

Legend: N = rows of the corpus.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from espalier.core.errors import InvalidInput
from espalier.data.dedup.candidates import LEADERS, crowded_files, find_candidates
from espalier.data.dedup.exact import find_exact
from espalier.data.dedup.plan import MAX_ROWS, Search, pair_files, part_shards, read_edges, split_pairs
from espalier.data.dedup.sets import write_sets
from espalier.data.dedup.verify import verify_pairs
from espalier.data.flow.spread import Spread, run_here

_AT_ONCE = 1 << 20


def find_duplicates(search: Search, spread: Spread = run_here) -> NDArray[np.uint8]:
    """1 for each row that is kept, 0 for a duplicate. (N,) `read_edges` and `exact.read_exact` say of what.

    Raises InvalidInput for more than 2^32 rows, StorageFull.
    """
    if search.rows >= MAX_ROWS:
        raise InvalidInput(f"{search.rows} rows are more than duplicates can be looked for in", hint="part the corpus")
    kept = search.row_bytes("kept", "w+")
    involved = search.row_bytes("involved", "w+")
    kept[:] = 1
    find_exact(search, kept, involved)
    if not search.bands:
        list(spread(write_sets, [(search, stretch) for stretch in part_shards(search)]))
        return kept
    single = np.array(kept)  # the first of each group of exact duplicates
    number = 0
    while True:
        tasks = [(search, number, band) for band in range(search.bands)]
        crowded = any(list(spread(find_candidates, tasks)))
        if number == 0:
            _mark_involved(search, involved)
            list(spread(write_sets, [(search, stretch) for stretch in part_shards(search)]))
        found = sum(spread(verify_pairs, [(search, number, stretch) for stretch in part_shards(search)]))
        _judge(search, kept, single)
        if not crowded or (not found and number >= len(LEADERS) - 1):
            return kept
        number += 1


def _mark_involved(search: Search, involved: NDArray[np.uint8]) -> None:
    """2 for each row that stands in a pair or a large bucket: later rounds pair no others."""
    for file in (*pair_files(search, 0), *crowded_files(search)):
        pairs = np.load(file, mmap_mode="r")
        for first in range(0, len(pairs), _AT_ONCE):
            later, earlier = split_pairs(pairs[first : first + _AT_ONCE])
            involved[earlier] = 2
            if file.name.startswith("pairs"):
                involved[later] = 2


def _judge(search: Search, kept: NDArray[np.uint8], single: NDArray[np.uint8]) -> None:
    from espalier.data.dedup.kernels import choose_kept

    kept[:] = single
    for shard in range(len(search.sketches)):
        choose_kept(read_edges(search, shard)["pair"].copy(), kept)
