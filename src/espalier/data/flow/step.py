"""What a cleaning step is: a declared name, version and typed parameters, and a function over batches.

Two kinds. A `Transform` sees one batch at a time, so batches may run anywhere, in any order. A `Survey` must see the
whole corpus before it can judge (duplicates, boilerplate, splits): it sketches each batch, decides once from all the
sketches, and then judges each batch by its decision.

Adding one is a file, a spec and an entry point in the group `espalier.cleaners`. Steps know no engine, no store and no
files but those their spec names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from espalier.core.types import Spec
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.spread import Spread


class Transform(Protocol):
    """A prepared step over one batch. Pure: the same batch gives the same outcome, whatever ran before."""

    def apply(self, batch: pa.RecordBatch) -> Outcome: ...


class Shards(Protocol):
    """The corpus as a survey may read it again: one batch a shard, mapped from disk, never all in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, shard: int) -> pa.RecordBatch: ...


class Survey(Protocol):
    """A prepared step over the whole corpus."""

    def sketch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What of a batch must be known for the decision: small, any schema of the step's own."""
        ...

    def decide(
        self, sketches: Sequence[pa.RecordBatch], shards: Shards, work: Path, spread: Spread
    ) -> Iterator[pa.RecordBatch]:
        """One decision for each shard, in order.

        `sketches` are mapped from disk one by one; what does not fit into memory is spilled to `work`; what can be done
        side by side is mapped by `spread`. `shards` may be sent along with a task.
        """
        ...

    def apply_decision(self, batch: pa.RecordBatch, decision: pa.RecordBatch) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class CleanStep:
    """A declared step. `prepare(spec, folder)` makes it ready; relative paths in the spec start at `folder`.

    `files` lists the spec's fields that name files; their content is part of the step's key. `fingerprint` says what
    else the outcome depends on and is in no file (a salt in the environment), without saying what it is.
    """

    name: str
    version: int  # raised whenever an outcome changes
    spec: type[Spec]
    prepare: Callable[[Any, Path], Transform | Survey]
    files: tuple[str, ...] = ()
    fingerprint: Callable[[Any, Path], str] | None = None

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"


class Rewriting(Protocol):
    """What a prepared step also has when it is a function of text alone: the engine rewrites answers by it too.

    The step's own `apply` sees to the batch's texts and conversations (`outcome.rewrite_conversations`).
    """

    def rewrite(self, texts: pa.LargeStringArray) -> pa.LargeStringArray: ...
