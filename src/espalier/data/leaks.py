"""The gate before training: no text that a model will be measured by may stand among those it learns from.

Two borders are watched. Between the splits of a version: exact and near-duplicates (those the split itself was drawn
by, so whoever decided the splits, what is about to be written is checked), and runs of words where that is asked for.
And against evaluation sets, by all three. A leak is a refusal that names the pairs, or is left out with that reason.

Legend: n = rows of a shard, N = of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Spec
from espalier.store.examples import SPLITS

if TYPE_CHECKING:
    from espalier.data.flow.spread import Spread
    from espalier.data.gate import Bounds
    from espalier.data.harvest import Harvest
    from espalier.data.split import Drawn

_SHOWN = 5
# Text of one gate: a larger evaluation set makes several, and every shard passes each.
_GATE_BYTES = 64 << 20
_GATE_TEXTS = 200_000
_TEST = SPLITS.index("test")


class LeakSpec(Spec):
    """What may not stand among training texts."""

    against: tuple[str, ...] = Field(
        (), description="evaluation sets: dataset:NAME@vN, or files or folders of tables or documents"
    )
    near: float = Field(
        0.8, gt=0, le=1, description="Jaccard index from which a text is a leak; between splits at least `split.near`"
    )
    run_words: int = Field(13, ge=0, le=100, description="words of a run that is looked for in both; 0 = none are")
    run_share: float = Field(
        0.5, gt=0, le=1, description="share of a held-out text's runs, standing in one text, from which that is a leak"
    )
    min_words: int = Field(8, ge=1, description="shorter texts of an evaluation set are not looked for")
    runs_between_splits: bool = Field(False, description="look for runs of words between the splits too")
    policy: Literal["refuse", "drop"] = Field("refuse", description="stop, or leave out the text that would be learned")


@dataclass(frozen=True, slots=True)
class Leak:
    """A row that may not be learned from, and what it gives away."""

    shard: int
    row: int  # in the shard
    name: str  # the example's id
    split: str
    other: str  # an example's id and split, or where a text stands in an evaluation set
    how: str

    def __str__(self) -> str:
        return f"{self.name} ({self.split}) ~ {self.other}, {self.how}"

    @property
    def reason(self) -> str:
        """Why the row is left out."""
        return f"leak: {self.other}, {self.how}"


def check_leaks(
    harvests: Sequence[Harvest], drawn: Sequence[Drawn], spec: LeakSpec, folder: Path, work: Path, spread: Spread
) -> Iterator[pa.StringArray | None]:
    """For each harvest why rows are to be left out (n,), null where they stay; None where all do.

    folder: where relative paths of `spec.against` start. work: the folder `split.draw_splits` worked in.

    Raises InvalidInput naming the pairs when there are any and the policy is to refuse, or an evaluation set cannot be
    read; NotFound where there is none.
    """
    leaks = [*find_between(harvests, drawn, spec, work)]
    gates = list(build_gates(harvests, drawn, spec, folder, work))
    for found in spread(judge_harvest, [(*task, gates) for task in _list_tasks(harvests, drawn)] if gates else []):
        leaks += found
    leaks.sort(key=lambda leak: (leak.shard, leak.row))
    if leaks and spec.policy == "refuse":
        raise refuse(leaks)
    return _explain(harvests, leaks)


def find_between(harvests: Sequence[Harvest], drawn: Sequence[Drawn], spec: LeakSpec, work: Path) -> Iterator[Leak]:
    """Duplicates in different splits, of those that were found when the splits were drawn."""
    from espalier.data.dedup.exact import read_exact
    from espalier.data.dedup.plan import read_edges, split_pairs
    from espalier.data.split import open_search

    splits = np.concatenate([np.empty(0, np.uint8), *(item.splits for item in drawn)])
    if not len(splits) or (splits == splits[0]).all():
        return
    search = open_search(harvests, spec.near, work)
    for shard in range(len(harvests)):
        edges, exact = read_edges(search, shard), read_exact(search, shard)
        edges = edges[edges["jaccard"] >= spec.near]
        pairs = np.concatenate([exact, edges["pair"]])
        jaccards = np.concatenate([np.full(len(exact), 2.0), edges["jaccard"]])
        later, earlier = split_pairs(pairs)
        for at in np.flatnonzero(splits[later] != splits[earlier]).tolist():
            # The one that is learned from is the offender.
            row, other = sorted((int(later[at]), int(earlier[at])), key=lambda number: int(splits[number]))
            how = "exact" if jaccards[at] > 1 else f"Jaccard {jaccards[at]:.2f}"
            names = [_name_row(harvests, search.starts, number) for number in (row, other)]
            own = int(np.searchsorted(search.starts, row, side="right")) - 1
            split, of = SPLITS[splits[row]], SPLITS[splits[other]]
            yield Leak(own, row - int(search.starts[own]), names[0], split, f"{names[1]} ({of})", how)


def build_gates(
    harvests: Sequence[Harvest], drawn: Sequence[Drawn], spec: LeakSpec, folder: Path, work: Path
) -> Iterator[tuple[Path, Bounds, int]]:
    """Gates for evaluation sets and held-out splits: folder, bounds, and the split from which on rows need not pass."""
    from espalier.data.gate import Bounds, build_gate
    from espalier.data.references import read_references

    number = 0
    bounds = Bounds(spec.near, run_words=spec.run_words, run_share=spec.run_share)
    texts = (pair for path in spec.against for pair in read_references(folder / path))
    for names, column in _part_texts(texts, spec.min_words):
        build_gate(work / f"gate-{number:03d}", names, column, bounds)
        yield work / f"gate-{number:03d}", bounds, _TEST
        number += 1
    if spec.runs_between_splits and spec.run_words:
        only_runs = Bounds(1, run_words=spec.run_words, run_share=spec.run_share)
        for split in range(1, len(SPLITS)):
            for names, column in _part_texts(_read_split(harvests, drawn, split), spec.run_words):
                build_gate(work / f"gate-{number:03d}", names, column, only_runs)
                yield work / f"gate-{number:03d}", only_runs, split
                number += 1


def judge_harvest(task: tuple[int, Harvest, NDArray[np.uint8], Sequence[tuple[Path, Bounds, int]]]) -> list[Leak]:
    """The leaks among one harvest's rows."""
    from espalier.data.flow.shard import load_shard
    from espalier.data.gate import judge_texts

    number, harvest, splits, gates = task
    texts, parents = list_texts(load_shard(harvest.shard))
    ids = harvest.load().column("id")
    found: dict[int, Leak] = {}
    for folder, bounds, until in gates:
        chosen = np.flatnonzero(splits[parents] < until)
        for hit in judge_texts(folder, texts.take(pa.array(chosen)), bounds):
            row = int(parents[chosen[hit.row]])
            name, split = ids[row].as_py(), SPLITS[splits[row]]
            found.setdefault(row, Leak(number, row, name, split, hit.where, hit.how))
    return list(found.values())


def list_texts(documents: pa.RecordBatch) -> tuple[pa.LargeStringArray, NDArray[np.int64]]:
    """Each row's text and each of its turns, and the row each is of: what of a row may give something away."""
    texts, parents = [documents.column("text")], [np.arange(len(documents))]
    for name in ("messages", "chosen", "rejected"):
        turns = documents.column(name)
        contents = turns.flatten().field("content").cast(pa.large_string())
        if len(contents):
            texts.append(contents)
            parents.append(np.repeat(np.arange(len(documents)), np.diff(np.asarray(turns.offsets))))
    return pa.concat_arrays(texts), np.concatenate(parents)


def refuse(leaks: Sequence[Leak]) -> InvalidInput:
    """The refusal that names the first pairs."""
    shown = "\n".join(f"  {leak}" for leak in leaks[:_SHOWN])
    more = f"\n  and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
    count = "1 example" if len(leaks) == 1 else f"{len(leaks)} examples"
    return InvalidInput(
        f"{count} would give away what a model is measured by:\n{shown}{more}",
        where="leaks",
        hint="leave them out (`leaks: {policy: drop}`), or keep the evaluation set's texts out of the sources",
    )


def _part_texts(texts: Iterator[tuple[str, str]], min_words: int) -> Iterator[tuple[list[str], pa.LargeStringArray]]:
    """Names and texts of at least so many words, as much at a time as a gate takes."""
    names: list[str] = []
    held: list[str] = []
    size = 0
    for name, text in texts:
        names.append(name)
        held.append(text)
        size += len(text)
        if size >= _GATE_BYTES or len(held) >= _GATE_TEXTS:
            yield _keep_long(names, held, min_words)
            names, held, size = [], [], 0
    if held:
        yield _keep_long(names, held, min_words)


def _keep_long(names: Sequence[str], texts: Sequence[str], min_words: int) -> tuple[list[str], pa.LargeStringArray]:
    """The texts of at least so many words, each once."""
    from espalier.data.dedup.words import hash_texts, read_words

    column = pa.array(texts, pa.large_string())
    counts = np.concatenate([np.diff(words.word_offsets) for words in read_words(column)])
    _, first = np.unique(np.array(hash_texts(column), np.uint64), return_index=True)
    chosen = np.sort(first[counts[first] >= min_words])
    return [names[at] for at in chosen.tolist()], column.take(pa.array(chosen))


def _read_split(harvests: Sequence[Harvest], drawn: Sequence[Drawn], split: int) -> Iterator[tuple[str, str]]:
    from espalier.data.flow.shard import load_shard

    for harvest, item in zip(harvests, drawn, strict=True):
        chosen = pa.array(np.flatnonzero(item.splits == split))
        if len(chosen):
            ids = harvest.load().column("id").take(chosen).to_pylist()
            texts = load_shard(harvest.shard).column("text").take(chosen).to_pylist()
            yield from zip([f"{name} ({SPLITS[split]})" for name in ids], texts, strict=True)


def _list_tasks(
    harvests: Sequence[Harvest], drawn: Sequence[Drawn]
) -> Iterator[tuple[int, Harvest, NDArray[np.uint8]]]:
    for number, (harvest, item) in enumerate(zip(harvests, drawn, strict=True)):
        yield number, harvest, item.splits


def _name_row(harvests: Sequence[Harvest], starts: NDArray[np.int64], row: int) -> str:
    shard = int(np.searchsorted(starts, row, side="right")) - 1
    name: str = harvests[shard].load().column("id")[row - int(starts[shard])].as_py()
    return name


def _explain(harvests: Sequence[Harvest], leaks: Sequence[Leak]) -> Iterator[pa.StringArray | None]:
    reasons: dict[int, dict[int, str]] = {}
    for leak in leaks:
        reasons.setdefault(leak.shard, {}).setdefault(leak.row, leak.reason)
    for number, harvest in enumerate(harvests):
        found = reasons.get(number)
        yield pa.array([found.get(row) for row in range(harvest.rows)], pa.string()) if found else None
