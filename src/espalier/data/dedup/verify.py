"""Candidates measured: the true Jaccard index of each pair, once, in an order that opens each set file once a shard.

Legend: m = pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from espalier.data.dedup.plan import EDGE, Pairs, Search, pair_files, shard_folder, split_pairs
from espalier.data.dedup.sets import open_sets
from espalier.store.disk import storage_errors


def verify_pairs(task: tuple[Search, int, range]) -> int:
    """Measure the candidates of one round whose later row is in some shards; how many reach `near`.

    Those go to `plan.read_edges`.
    """
    search, number, shards = task
    files = [np.load(path, mmap_mode="r") for path in pair_files(search, number)]
    found = 0
    for shard in shards:
        bounds = search.starts[shard : shard + 2].astype(np.uint64) << np.uint64(32)
        parts = [file[slice(*np.searchsorted(file, bounds))] for file in files]
        pairs = _leave_out_compared(search, shard, np.unique(np.concatenate([np.empty(0, np.uint64), *parts])))
        if not len(pairs):
            continue
        jaccards = measure(search, shard, pairs)
        edges = np.empty(len(pairs), EDGE)
        edges["pair"], edges["jaccard"] = pairs, jaccards
        edges = edges[jaccards >= search.near]
        folder = shard_folder(search, shard)
        with storage_errors(search.work):
            folder.mkdir(exist_ok=True)
            np.save(folder / f"compared-{number:03d}.npy", pairs)
            np.save(folder / f"edges-{number:03d}.npy", edges)
        found += len(edges)
    return found


def measure(search: Search, shard: int, pairs: Pairs) -> NDArray[np.float64]:
    """The Jaccard index of each pair (m,), of which all later rows are in `shard`."""
    from espalier.data.dedup import kernels

    later, earlier = split_pairs(pairs)
    ours = open_sets(search, shard)
    places = ours.find(later)
    out = np.empty(len(pairs))
    other_shards = np.searchsorted(search.starts, earlier, side="right") - 1
    for other in np.unique(other_shards):
        chosen = np.flatnonzero(other_shards == other)
        theirs = open_sets(search, int(other))
        both = np.stack([places[chosen], theirs.find(earlier[chosen])], axis=1)
        measured = np.empty(len(chosen))
        kernels.measure_pairs(both, ours.shingles, ours.offsets, theirs.shingles, theirs.offsets, measured)
        out[chosen] = measured
    return out


def _leave_out_compared(search: Search, shard: int, pairs: Pairs) -> Pairs:
    for path in sorted(shard_folder(search, shard).glob("compared-*.npy")):
        pairs = pairs[~np.isin(pairs, np.load(path), assume_unique=True)]
    return pairs
