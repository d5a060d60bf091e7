"""Cleaned documents -> examples, shard by shard: kept under a key like any step's outcome, with their figures.

The last thing done to a shard before the splits are drawn. Knows tasks; does not know splits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from espalier.data.flow.chain import Planned, chain_key, place, prepare
from espalier.data.flow.files import BatchFile, open_batches, save_batch
from espalier.data.flow.run import Flow
from espalier.data.flow.shard import Shard, load_shard
from espalier.data.tally import Tally, join_texts, tally_examples

if TYPE_CHECKING:
    from espalier.tokens.fast import FastTokenizer

INPUT_IDS = pa.field("input_ids", pa.large_list(pa.int32()), nullable=False)


@dataclass(frozen=True, slots=True)
class HarvestTask:
    """One shard to make examples of. `tokenizer` is a tokenizer.json, empty when nothing is tokenised."""

    shard: Shard
    task: Planned
    tokenizer: str
    tokenizer_digest: str
    cache: str


@dataclass(frozen=True, slots=True)
class Harvest:
    """A shard and its examples, row for row. `key` names the examples' content."""

    shard: Shard
    key: str
    path: str
    rows: int

    def load(self) -> pa.RecordBatch:
        """The examples, mapped from disk: `store.examples.SCHEMA`, and `input_ids` when they were tokenised."""
        return BatchFile(Path(self.path))[0]

    def tally(self) -> Tally:
        """The examples' figures."""
        return Tally.from_json(BatchFile(Path(self.path)).note)

    def tally_rows(self, chosen: NDArray[np.bool_]) -> Tally:
        """The figures of some of its examples. chosen: (n,)"""
        return _tally(self.load().filter(pa.array(chosen)), keep_groups=bool(self.tally().groups))


def harvest_shards(
    flow: Flow, shards: Sequence[Shard], task: Planned, tokenizer: str, tokenizer_digest: str
) -> Iterator[Harvest]:
    """Examples of every shard, in order."""
    tasks = (HarvestTask(shard, task, tokenizer, tokenizer_digest, str(flow.cache)) for shard in shards)
    return flow.spread(harvest_shard, tasks)


def harvest_shard(task: HarvestTask) -> Harvest:
    """Make a shard's examples, unless they are there."""
    key = chain_key("examples", task.task.key, task.shard.key, task.tokenizer_digest)
    path = place(Path(task.cache), "examples", key)
    file = open_batches(path)
    if file is None:
        prepared: Any = prepare(task.task)
        batch = prepared.make_examples(load_shard(task.shard))
        if task.tokenizer:
            batch = batch.append_column(INPUT_IDS, tokenise(batch, task.tokenizer))
        save_batch(path, batch, _tally(batch, keep_groups=prepared.label_count > 0).to_json())
        rows = len(batch)
    else:
        rows = len(file[0])
    return Harvest(task.shard, key, str(path), rows)


def _tally(batch: pa.RecordBatch, *, keep_groups: bool) -> Tally:
    tally = tally_examples(batch, keep_groups=keep_groups)
    if INPUT_IDS.name in batch.schema.names:
        tally.tokens.update(pc.list_value_length(batch.column(INPUT_IDS.name)).to_pylist())
    return tally


def tokenise(batch: pa.RecordBatch, tokenizer: str) -> pa.LargeListArray:
    """Token ids of each example's text, int32. (n,)"""
    return _load(tokenizer).encode(join_texts(batch))


@functools.lru_cache(maxsize=2)
def _load(tokenizer: str) -> FastTokenizer:
    from espalier.tokens.fast import load_fast_tokenizer

    return load_fast_tokenizer(Path(tokenizer))
