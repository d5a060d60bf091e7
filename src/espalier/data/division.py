"""Units -> train, validation or test, by numbers alone: grouped, stratified, and stable as units are added.

A unit is what an example is to splitting. Units of one key, of one source document, and near-duplicates are merged into
a group. Each key hashes to a place in [0, 1); a group goes where its most held-out member would go. So adding units can
move a group from train towards test, never from test to train.

Hashing alone leaves a small stratum's share, and a small dataset's whole test split, to chance. So with strata, one
with fewer held-out groups than its share is topped up from train, and a split that was asked for is never left empty.
What is topped up is held out only while it is needed, unless an earlier version's assignments keep it.

Everything is arrays: about forty bytes a unit at the peak. Knows no text and no file.

Legend: n = units, g = groups, k = keys of an earlier version, m = edges.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.core.types.examples import Split
from espalier.data.dedup.components import Forest

TRAIN, VALIDATION, TEST = 0, 1, 2  # as store.examples.SPLITS counts; the higher, the more held out
_INDEX: dict[Split, int] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_UNKNOWN = 255
# With fewer groups than splits none can be spared.
_FEWEST_GROUPS = 3
# The first 7 of a key's 8 bytes are its place.
_PLACES = 1 << 56


@dataclass(frozen=True, slots=True)
class Units:
    """What splitting knows of n units."""

    keys: NDArray[np.uint64]  # (n,) from `hash_key`; equal keys stay together, and a key says where it goes
    documents: NDArray[np.uint64]  # (n,) equal ones stay together too
    strata: NDArray[np.uint64]  # (n,) 0 where nothing is stratified


@dataclass(frozen=True, slots=True)
class Shares:
    """What part of the groups is held out, and whether each stratum gets its part."""

    test: float
    validation: float
    stratify: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """Where keys of an earlier version stand; those stay there."""

    keys: NDArray[np.uint64]  # (k,) sorted
    splits: NDArray[np.uint8]  # (k,)

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """The split of each key (n,), `_UNKNOWN` for one that is new."""
        if not len(self.keys):
            return np.full(len(keys), _UNKNOWN, np.uint8)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, self.splits[places], np.uint8(_UNKNOWN))


def hash_key(key: str, salt: str) -> int:
    """64 bits of sha256: the same for ever. The first 56 are the key's place in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"{salt}\n{key}".encode()).digest()[:8], "big")


def index_known(assignments: Mapping[str, Split], salt: str) -> Known:
    """The assignments of an earlier version (`layout.read_assignments`), nine bytes each."""
    keys = np.fromiter((hash_key(key, salt) for key in assignments), np.uint64, len(assignments))
    splits = np.fromiter((_INDEX[split] for split in assignments.values()), np.uint8, len(assignments))
    order = np.argsort(keys, kind="stable")
    return Known(keys[order], splits[order])


def divide(units: Units, near: Forest, shares: Shares, known: Known) -> NDArray[np.uint8]:
    """The split of each unit (n,). `near` are units, by number, that are too much alike to be parted."""
    groups = group_units(units, near)
    count = int(groups.max()) + 1 if len(groups) else 0
    hashed = _place(units.keys, shares)
    earlier = known.find(units.keys)
    splits = np.zeros(count, np.uint8)
    np.maximum.at(splits, groups, hashed)
    seen = earlier != _UNKNOWN
    kept = np.zeros(count, np.uint8)
    np.maximum.at(kept, groups[seen], earlier[seen])
    fixed = np.zeros(count, bool)
    fixed[groups[seen]] = True
    splits[fixed] = kept[fixed]
    if count == 1 and not fixed[0] and any((of == of[0]).all() for of in (units.keys, units.documents)):
        splits[0] = TRAIN  # one document, or one key: held out as a whole, it would leave nothing to train on
    first = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(first, groups, units.keys)
    strata = np.zeros(count, np.uint64)
    strata[groups[::-1]] = units.strata[::-1]  # a group is of its first unit's stratum
    _top_up(splits, ~fixed, first, strata, shares)
    return splits[groups]


def group_units(units: Units, near: Forest) -> NDArray[np.uint32]:
    """The group of each unit (n,), numbered from 0 in order of their first units: equal keys or documents, likeness."""
    from espalier.data.dedup.kernels import unite

    parent = np.arange(len(units.keys), dtype=np.uint32)
    for column in (units.keys, units.documents):
        unite(_tie_equal(column), parent)
    unite(near, parent)
    own = parent == np.arange(len(parent), dtype=np.uint32)
    numbers = np.cumsum(own, dtype=np.uint32)
    numbers -= np.uint32(1)
    return numbers[parent]


def _tie_equal(column: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Edges (m, 2) between neighbours among equal values."""
    order = np.argsort(column, kind="stable").astype(np.uint32)
    values = column[order]
    same = np.flatnonzero(values[1:] == values[:-1])
    return np.stack([order[same], order[same + 1]], axis=1).astype(np.int64)


def _place(keys: NDArray[np.uint64], shares: Shares) -> NDArray[np.uint8]:
    splits = np.zeros(len(keys), np.uint8)
    splits[_stand_below(keys, shares.test + shares.validation)] = VALIDATION
    splits[_stand_below(keys, shares.test)] = TEST
    return splits


def _stand_below(keys: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Whether a key's place is below `share`. (n,)"""
    first_above = math.ceil(share * _PLACES) << 8
    return keys < np.uint64(first_above) if first_above < 1 << 64 else np.ones(len(keys), bool)


def _top_up(
    splits: NDArray[np.uint8],
    free: NDArray[np.bool_],
    keys: NDArray[np.uint64],
    strata: NDArray[np.uint64],
    shares: Shares,
) -> None:
    """Move `free` groups (g,) from train to held-out splits where those are short, in the order of their keys."""
    for split, share in ((TEST, shares.test), (VALIDATION, shares.validation)):
        for members in _part_strata(keys, strata) if shares.stratify else ():
            missing = int(share * len(members)) - int((splits[members] == split).sum())
            _promote(members, splits, free, split, missing)
        if share and len(splits) >= _FEWEST_GROUPS and not (splits == split).any():
            _promote(np.argsort(keys, kind="stable"), splits, free, split, 1)


def _part_strata(keys: NDArray[np.uint64], strata: NDArray[np.uint64]) -> Iterable[NDArray[np.int64]]:
    """The groups of each stratum, in the order of their keys."""
    order = np.lexsort((keys, strata))
    bounds = np.searchsorted(strata, np.unique(strata), sorter=order)
    return np.split(order, bounds[1:])


def _promote(
    members: NDArray[np.int64], splits: NDArray[np.uint8], free: NDArray[np.bool_], split: int, count: int
) -> None:
    if count > 0:
        candidates = members[(splits[members] == TRAIN) & free[members]]
        splits[candidates[:count]] = split
