"""Train, validation and test: what a recipe may say of them, and the drawing of them for all the examples of a corpus.

Each shard's rows become numbers (`units`), near-duplicates are found over the whole corpus (`dedup.search`) and joined
to components (`dedup.components`), and the numbers are divided (`division`). Shards are read side by side by `spread`;
no text is held beyond its shard.

Legend: n = examples of a shard, N = of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Spec
from espalier.core.types.examples import Split

if TYPE_CHECKING:
    from espalier.data.dedup.components import Forest
    from espalier.data.dedup.plan import Search
    from espalier.data.division import Units
    from espalier.data.flow.spread import Spread
    from espalier.data.harvest import Harvest

# Words of a shingle, for likeness across splits.
SHINGLE_WORDS = 3


class SplitSpec(Spec):
    """How examples are divided."""

    test: float = Field(0.1, ge=0, lt=1, description="share held out for evaluation")
    validation: float = Field(0.1, ge=0, lt=1, description="share held out for choosing while training")
    stratify_by: tuple[str, ...] = Field(
        (),
        description="tags (format, language ...), label:FIELD, source (the folder) or length, "
        "whose values each get their share",
    )
    group_by: str = Field("", description="a tag whose equal values share a split; source documents always do")
    near: float = Field(0.7, gt=0, le=1, description="Jaccard index from which two documents share a split")
    salt: str = Field("", description="another salt gives another division")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A shard's examples divided."""

    splits: NDArray[np.uint8]  # (n,) index into store.examples.SPLITS
    groups: pa.StringArray  # (n,) what stays together by name; the key of an earlier version's assignments
    strata: pa.StringArray  # (n,)


def draw_splits(
    harvests: Sequence[Harvest], spec: SplitSpec, previous: Mapping[str, Split], work: Path, spread: Spread
) -> Iterator[Drawn]:
    """The division of each harvest, in order. `previous`: group -> split of an earlier version; those stay there.

    Raises InvalidInput when nothing is left to train on, StorageFull.
    """
    from espalier.data.dedup.components import NO_FOREST
    from espalier.data.division import TRAIN, Shares, divide, index_known
    from espalier.data.flow.files import BatchFile

    undivided = not (spec.test or spec.validation or previous)  # then likeness has nothing to say
    near_paths = [None if undivided else _near_path(work, number) for number in range(len(harvests))]
    tasks = [
        (harvest, spec, path, _unit_path(work, number))
        for number, (harvest, path) in enumerate(zip(harvests, near_paths, strict=True))
    ]
    for _ in spread(_sketch, tasks):
        pass
    near = NO_FOREST if undivided else find_components(open_search(harvests, spec.near, work), spread)
    units = _load_units(work, len(harvests))
    shares = Shares(spec.test, spec.validation, bool(spec.stratify_by))
    splits = divide(units, near, shares, index_known(previous, spec.salt))
    if len(splits) and not (splits == TRAIN).any():
        raise _nothing_to_train(units, near, spec)
    first = 0
    for number in range(len(harvests)):
        names = BatchFile(_unit_path(work, number))[0]
        yield Drawn(splits[first : first + len(names)], names.column("group"), names.column("stratum_name"))
        first += len(names)


def open_search(harvests: Sequence[Harvest], near: float, work: Path) -> Search:
    """The search for near-duplicates among the harvests' documents; `work` is the folder they are drawn in."""
    from espalier.data.dedup.known import Sketches
    from espalier.data.dedup.plan import Search

    sketches = Sketches([_near_path(work, number) for number in range(len(harvests))])
    folder = work / "near"
    folder.mkdir(exist_ok=True)
    return Search(sketches, DocumentShards(harvests), folder, near, SHINGLE_WORDS)


class DocumentShards(Sequence[pa.RecordBatch]):
    """The documents behind each harvest, loaded when asked for. Picklable."""

    def __init__(self, harvests: Sequence[Harvest]) -> None:
        self._harvests = tuple(harvests)

    def __len__(self) -> int:
        return len(self._harvests)

    def __getitem__(self, number: Any) -> Any:
        from espalier.data.flow.shard import load_shard

        return load_shard(self._harvests[number].shard)


def find_components(search: Search, spread: Spread) -> Forest:
    """The rows of a corpus that are duplicates of each other, exactly or nearly, transitively."""
    from espalier.data.dedup.components import merge_forests
    from espalier.data.dedup.plan import part_shards
    from espalier.data.dedup.search import find_duplicates

    find_duplicates(search, spread)
    return merge_forests(spread(contract_shards, [(search, stretch) for stretch in part_shards(search)]))


def contract_shards(task: tuple[Search, range]) -> Forest:
    """The forest of the duplicates found for some shards' rows."""
    from espalier.data.dedup.components import contract
    from espalier.data.dedup.exact import read_exact
    from espalier.data.dedup.plan import read_edges, split_pairs

    search, shards = task
    pairs = [read_edges(search, shard)["pair"] for shard in shards]
    pairs += [read_exact(search, shard) for shard in shards]
    return contract(np.stack(split_pairs(np.concatenate([np.empty(0, np.uint64), *pairs])), axis=1))


def _sketch(task: tuple[Harvest, SplitSpec, Path | None, Path]) -> None:
    """Write one harvest's units and, where there is a path for it, its sketch for likeness."""
    from espalier.data.dedup.sketch import sketch_texts
    from espalier.data.dedup.words import read_words
    from espalier.data.flow.files import save_batch
    from espalier.data.flow.shard import load_shard
    from espalier.data.units import sketch_units

    harvest, spec, near_path, unit_path = task
    documents = load_shard(harvest.shard)
    texts = documents.column("text")
    words = None  # read twice it would cost as much again; where nothing is divided, few texts are read at all
    if near_path is not None:
        words = list(read_words(texts))
        save_batch(near_path, sketch_texts(texts, spec.near, SHINGLE_WORDS, words))
    units = sketch_units(harvest.load(), documents, words, spec.stratify_by, spec.group_by, spec.salt)
    save_batch(unit_path, units)


def _load_units(work: Path, count: int) -> Units:
    from espalier.data.division import Units
    from espalier.data.flow.files import BatchFile

    files = [BatchFile(_unit_path(work, number))[0] for number in range(count)]
    columns = {
        name: np.concatenate([np.empty(0, np.uint64), *(file.column(name).to_numpy() for file in files)])
        for name in ("key", "document", "stratum")
    }
    return Units(columns["key"], columns["document"], columns["stratum"])


def _nothing_to_train(units: Units, near: Forest, spec: SplitSpec) -> InvalidInput:
    from espalier.data.division import group_units

    tied = int(np.bincount(group_units(units, near)).max())
    return InvalidInput(
        f"no example is left to train on: {tied} of {len(units.keys)} are tied together by their source or by likeness",
        where="split.near",
        hint=f"raise it above {spec.near}, if examples may be that much alike across splits; or give more documents",
    )


def _near_path(work: Path, number: int) -> Path:
    return work / f"likeness-{number:06d}.arrow"


def _unit_path(work: Path, number: int) -> Path:
    return work / f"units-{number:06d}.arrow"
