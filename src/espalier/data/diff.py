"""Two versions of a dataset side by side: rows added, removed, changed; what is spread otherwise; what the recipe did.

Rows are compared by 64 bits of what they say: a few numbers a row in memory, whatever its size. Knows folders; does not
know names of versions.

Legend: n = rows of a version.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from espalier.data.comparison import DatasetDiff, Range, RowNote
from espalier.data.manifest import DatasetManifest, Distribution, read_manifest
from espalier.store.examples import SPLITS, example_files

Keys = NDArray[np.uint64]
_CONTENT = ["messages", "text", "chosen", "rejected"]
_SHOWN_CHARS = 120


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a version as numbers. (n,) each; in the order of its files."""

    content: Keys  # of what the row says
    place: Keys  # of the file and the row or part of it the row was made from
    group: Keys  # of its tag `group`; 0 where it has none
    split: NDArray[np.uint8]  # index into SPLITS


def compare_datasets(before: Path, after: Path, *, shown: int = 5) -> DatasetDiff:
    """What is different in the folder `after`; `shown` rows of each kind are told.

    A row is unchanged when a row of the other version says the same, wherever that came from. Of the others, a row is
    changed when one made from the same place (file and row), or alone in the same group, is there and says something
    else. Raises NotFound where there is no dataset.
    """
    old_manifest, new_manifest = read_manifest(before), read_manifest(after)
    old, new = read_rows(before), read_rows(after)
    same_old, same_new = _match(_number(old.content), _number(new.content))
    left_old, left_new = _others(same_old, len(old.content)), _others(same_new, len(new.content))
    changed_old, changed_new = _pair(old, new, left_old, left_new)
    added, removed = np.setdiff1d(left_new, changed_new), np.setdiff1d(left_old, changed_old)
    moves = Counter(
        f"{SPLITS[one]} -> {SPLITS[other]}"
        for one, other in zip(old.split[same_old].tolist(), new.split[same_new].tolist(), strict=True)
        if one != other
    )
    return DatasetDiff(
        examples=(len(old.content), len(new.content)),
        unchanged=len(same_old),
        added=len(added),
        removed=len(removed),
        changed=len(changed_new),
        moved=dict(sorted(moves.items())),
        rows=(
            *(RowNote(kind="added", id=id_, text=text) for id_, text in _tell(after, added[:shown])),
            *(RowNote(kind="removed", id=id_, text=text) for id_, text in _tell(before, removed[:shown])),
            *(RowNote(kind="changed", id=id_, text=text) for id_, text in _tell(after, changed_new[:shown])),
        ),
        counts=_compare_counts(old_manifest, new_manifest),
        lengths=_compare_lengths(old_manifest, new_manifest),
        recipe=tuple(_compare_recipes(old_manifest, new_manifest)),
    )


def read_rows(folder: Path) -> Rows:
    """The rows of the version in `folder` as numbers. Raises NotFound."""
    content, document, group, split = array("Q"), array("Q"), array("Q"), array("B")
    for batch in _batches(folder, [*_CONTENT, "documents", "tags", "split"]):
        for row in batch:
            content.append(_hash(json.dumps([row[name] for name in _CONTENT])))
            document.append(_hash(row["documents"][0] if row["documents"] else row["split"]))
            key = dict(row["tags"]).get("group")
            group.append(_hash(key) if key else 0)
            split.append(SPLITS.index(row["split"]))
    place = _find_places(folder, _to_keys(document))
    return Rows(_to_keys(content), place, _to_keys(group), np.array(split, np.uint8))


def _find_places(folder: Path, documents: Keys) -> Keys:
    """Of each document (n,), its file and where in it; itself where the folder does not tell.

    The id alone would not do: it begins with the digest of the file's bytes, which any change in the file changes.
    """
    ids, places = array("Q"), array("Q")
    for path in sorted(folder.glob("documents*.parquet")):
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(columns=["id", "spans"]):
                for row in batch.to_pylist():
                    uri = row["spans"][0]["uri"] if row["spans"] else ""
                    ids.append(_hash(row["id"]))
                    places.append(_hash(f"{uri}\n{row['id'].partition('.')[2]}"))
    if not len(ids):
        return documents
    order = np.argsort(_to_keys(ids))
    known, told = _to_keys(ids)[order], _to_keys(places)[order]
    at = np.minimum(np.searchsorted(known, documents), len(known) - 1)
    found: Keys = np.where(known[at] == documents, told[at], documents)
    return found


def _to_keys(values: array[int]) -> Keys:
    return np.frombuffer(values, np.uint64) if len(values) else np.zeros(0, np.uint64)


def _batches(folder: Path, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
    for path in example_files(folder):
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=4096, columns=columns):
                yield batch.to_pylist()


def _number(content: Keys) -> Keys:
    """Keys told apart where several are equal: the second of two equal ones becomes another number. (n,)"""
    order = np.argsort(content, kind="stable")
    ordered = content[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]] if len(ordered) else np.zeros(0, bool)
    at = np.arange(len(ordered))
    occurrence = at - np.maximum.accumulate(np.where(starts, at, 0)) if len(ordered) else at
    out = np.empty_like(content)
    out[order] = ordered + occurrence.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return out


def _match(one: Keys, other: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where equal keys stand in both; keys are unique in each."""
    _, first, second = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    return first, second


def _others(chosen: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    keep = np.ones(count, bool)
    keep[chosen] = False
    return np.flatnonzero(keep)


def _pair(
    old: Rows, new: Rows, left_old: NDArray[np.int64], left_new: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows left over in both that were made from the same place, or stand alone in the same group."""
    pairs_old, pairs_new = [], []
    for name in ("place", "group"):
        keys_old, keys_new = getattr(old, name)[left_old], getattr(new, name)[left_new]
        first, second = _match_single(keys_old, keys_new)
        pairs_old.append(left_old[first])
        pairs_new.append(left_new[second])
        left_old, left_new = np.delete(left_old, first), np.delete(left_new, second)
    return np.concatenate(pairs_old), np.concatenate(pairs_new)


def _match_single(one: Keys, other: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where keys stand that occur once in each, and are not 0."""
    found = []
    for keys in (one, other):
        values, first, counts = np.unique(keys, return_index=True, return_counts=True)
        single = (counts == 1) & (values != 0)
        found.append((values[single], first[single]))
    (values_one, at_one), (values_other, at_other) = found
    first, second = _match(values_one, values_other)
    return at_one[first], at_other[second]


def _tell(folder: Path, rows: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
    """Id and first words of some rows."""
    wanted = set(rows.tolist())
    number = 0
    for batch in _batches(folder, ["id", *_CONTENT]) if wanted else ():
        for row in batch:
            if number in wanted:
                turns = [*row["messages"], *row["chosen"]]
                text = " ".join((turns[0]["content"] if turns else row["text"]).split())
                yield row["id"], text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
            number += 1


def _compare_counts(old: DatasetManifest, new: DatasetManifest) -> dict[str, dict[str, tuple[int, int]]]:
    """Counts that are different, by what is counted and value."""
    tables: list[tuple[str, Mapping[str, int], Mapping[str, int]]] = [
        (name, getattr(old, name), getattr(new, name))
        for name in ("splits", "formats", "languages", "drops", "redactions")
    ]
    tables += [(f"answers by {name}", old.labels.get(name, {}), new.labels.get(name, {}))
               for name in sorted({*old.labels, *new.labels})]  # fmt: skip
    found = {}
    for name, before, after in tables:
        keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key, 0) != after.get(key, 0)]
        if keys:
            found[name] = {key: (before.get(key, 0), after.get(key, 0)) for key in keys}
    return found


def _compare_lengths(old: DatasetManifest, new: DatasetManifest) -> dict[str, tuple[Range, Range]]:
    """Lengths that are spread otherwise."""
    found = {}
    for name in ("chars", "words", "tokens"):
        before, after = getattr(old, name), getattr(new, name)
        if before and after and before != after:
            found[name] = (_range(before), _range(after))
    return found


def _range(spread: Distribution) -> Range:
    return Range(p5=spread.p5, median=spread.median, p95=spread.p95)


def _compare_recipes(old: DatasetManifest, new: DatasetManifest) -> Iterator[str]:
    """Sentences on steps and parameters that are different."""
    before = {report.step.partition("@")[0]: report for report in old.steps}
    after = {report.step.partition("@")[0]: report for report in new.steps}
    for name in dict.fromkeys([*before, *after]):
        if name not in after:
            yield f"without {before[name].step}"
        elif name not in before:
            yield f"with {after[name].step}"
        else:
            if before[name].step != after[name].step:
                yield f"{before[name].step} is {after[name].step}"
            yield from _compare_parameters(name, before[name].parameters, after[name].parameters)
    yield from _compare_parameters("task", old.task, new.task)
    yield from _compare_parameters("split", old.split, new.split)
    shared = [name for name in before if name in after]
    if shared != [name for name in after if name in before]:
        yield "the steps' order"


def _compare_parameters(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            yield f"{name}.{key}: {_short(before.get(key))} -> {_short(after.get(key))}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def _hash(text: str) -> int:
    """64 bits of a text, never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") or 1
