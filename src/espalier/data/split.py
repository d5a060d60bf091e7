"""Train, validation and test by hash: grouped, so that nothing straddles, and stable, so that growth moves nothing
out of a test set.

A unit is what must not be torn: documents of one key (a ticket as mail and as PDF) and near-duplicates are merged
into a group. Each unit's key hashes to a place in [0, 1); a group goes where its most held-out member would go. So
adding units can move a group from train towards test, never from test to train. Knows texts and keys; does not know
files or tasks.

Hashing alone leaves a small stratum's share, and a small dataset's whole test split, to chance. So with `stratify_by` a
stratum with fewer held-out groups than its share is topped up from train, and a split that was asked for is never left
empty. What is topped up is held out only while it is needed, unless `previous` keeps it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from espalier.core.types import Spec
from espalier.core.types.examples import Split
from espalier.data.nearness import Pair

# With fewer groups than splits none can be spared.
_FEWEST_GROUPS = 3
_HELD_OUT: tuple[Split, ...] = ("test", "validation")
_RANK: dict[Split, int] = {"test": 0, "validation": 1, "train": 2}


class SplitSpec(Spec):
    """How examples are divided."""

    test: float = Field(0.1, ge=0, lt=1, description="share held out for evaluation")
    validation: float = Field(0.1, ge=0, lt=1, description="share held out for choosing while training")
    stratify_by: tuple[str, ...] = Field((), description="tags, or label:FIELD, whose values each get their share")
    near: float = Field(0.7, gt=0, le=1, description="Jaccard index from which two documents share a split")
    salt: str = Field("", description="another salt gives another division")


@dataclass(frozen=True, slots=True)
class Unit:
    """One example as splitting sees it."""

    key: str  # equal keys stay together
    stratum: str = ""


def assign_splits(
    units: Sequence[Unit], near: Sequence[Pair], spec: SplitSpec, previous: Mapping[str, Split] | None = None
) -> list[Split]:
    """The split of each unit.

    near: the pairs of units that are too much alike to be parted (`find_pairs` at `spec.near`).
    previous: key -> split of an earlier version: those stay where they were.
    """
    groups = group_units(units, near)
    splits = {
        root: _place_group([units[i].key for i in members], spec, previous or {}) for root, members in groups.items()
    }
    free = {root for root, members in groups.items() if not any(units[i].key in (previous or {}) for i in members)}
    _top_up(units, splits, free, spec)
    out: list[Split] = ["train"] * len(units)
    for root, members in groups.items():
        for member in members:
            out[member] = splits[root]
    return out


def group_units(units: Sequence[Unit], near: Sequence[Pair]) -> dict[int, list[int]]:
    """Positions of units that must stay together, by the first of them: equal keys, near-duplicates, transitively."""
    parent = list(range(len(units)))

    def find(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first_with: dict[str, int] = {}
    links = [(first_with.setdefault(unit.key, index), index) for index, unit in enumerate(units)]
    links += [(pair.first, pair.second) for pair in near]
    for one, other in links:
        low, high = sorted((find(one), find(other)))
        parent[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(units)):
        groups[find(index)].append(index)
    return dict(groups)


def place(key: str, salt: str) -> float:
    """A key's place in [0, 1): the same for ever."""
    digest = hashlib.sha256(f"{salt}\n{key}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def _place_group(keys: Sequence[str], spec: SplitSpec, previous: Mapping[str, Split]) -> Split:
    known = [previous[key] for key in keys if key in previous]
    return min(known or [_place_key(key, spec) for key in keys], key=_RANK.__getitem__)


def _place_key(key: str, spec: SplitSpec) -> Split:
    at = place(key, spec.salt)
    return "test" if at < spec.test else "validation" if at < spec.test + spec.validation else "train"


def _top_up(units: Sequence[Unit], splits: dict[int, Split], free: Collection[int], spec: SplitSpec) -> None:
    """Move groups of `free` from train to held-out splits where those are short; `splits` is by group."""
    by_place = sorted(splits, key=lambda root: (place(units[root].key, spec.salt), units[root].key))
    strata: dict[str, list[int]] = defaultdict(list)
    for root in by_place:
        strata[units[root].stratum].append(root)
    for split, share in zip(_HELD_OUT, (spec.test, spec.validation), strict=True):
        for roots in strata.values() if spec.stratify_by else ():
            missing = int(share * len(roots)) - sum(splits[root] == split for root in roots)
            _promote(roots, splits, free, split, missing)
        if share and len(splits) >= _FEWEST_GROUPS and split not in splits.values():
            _promote(by_place, splits, free, split, 1)


def _promote(roots: Sequence[int], splits: dict[int, Split], free: Collection[int], split: Split, count: int) -> None:
    candidates = [root for root in roots if splits[root] == "train" and root in free]
    for root in candidates[: max(0, count)]:
        splits[root] = split
