"""Steps over one shard, in whatever process: each outcome is kept under its key, and found again instead of made.

A key is over the step (name, version, parameters, the content of files it names, the code) and the key of what it is
given. So a recipe changed at its end computes its end alone, and a killed build goes on where it was.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from espalier.core.plugins import load_plugin
from espalier.data.flow.files import BatchFile, open_batches, save_batch
from espalier.data.flow.outcome import Outcome, apply_outcome
from espalier.data.flow.record import describe_dropped, load_outcome, read_note, save_outcome
from espalier.data.flow.shard import Shard, load_shard
from espalier.data.flow.step import CleanStep, Survey, Transform
from espalier.data.manifest import name_reason

GROUP = "espalier.cleaners"


# Of a note, what a report is summed from.
_FIGURES = ("rows_in", "rows_out", "drops", "counts")


@dataclass(frozen=True, slots=True)
class Planned:
    """A step of a recipe, ready to be sent anywhere: `spec` is JSON, `folder` is where its relative paths start."""

    name: str
    id: str
    spec: str
    folder: str
    key: str


@dataclass(frozen=True, slots=True)
class Segment:
    """What to do with one shard: apply a survey's decision, run transforms, sketch for the next survey."""

    shard: Shard
    cache: str
    survey: Planned | None = None
    decision: str = ""
    decision_digest: str = ""
    transforms: tuple[Planned, ...] = ()
    next_survey: Planned | None = None
    concealing: tuple[Planned, ...] = ()  # steps that take out personal data, for what is dropped before they come


@dataclass(frozen=True, slots=True)
class Done:
    """A segment's result. `notes` holds each step's figures, `dropped` the files of what was left out."""

    shard: Shard
    notes: tuple[dict[str, Any], ...]
    dropped: tuple[str, ...]
    sketch: str = ""


@functools.lru_cache(maxsize=64)
def prepare(planned: Planned) -> Transform | Survey:
    """The step made ready, once a process. Raises NotFound or InvalidInput for files it names."""
    declared: CleanStep = load_plugin(GROUP, planned.name)
    return declared.prepare(declared.spec.model_validate_json(planned.spec), Path(planned.folder))


def run_segment(segment: Segment) -> Done:
    """Do what the segment says, making only what is not there."""
    return _Runner(segment).run()


class _Runner:
    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._cache = Path(segment.cache)
        self._shard = segment.shard
        self._batch: pa.RecordBatch | None = None  # loaded when the first thing must be made
        self._notes: list[dict[str, Any]] = []
        self._dropped: list[str] = []

    def run(self) -> Done:
        segment = self._segment
        if segment.survey is not None:
            self._step(segment.survey, segment.decision_digest)
        for planned in segment.transforms:
            self._step(planned)
        sketch = self._sketch(segment.next_survey) if segment.next_survey else ""
        return Done(self._shard, tuple(self._notes), tuple(self._dropped), sketch)

    def _step(self, planned: Planned, decided: str = "") -> None:
        key = chain_key(planned.key, self._shard.key, decided)
        path = place(self._cache, "steps", key)
        note = read_note(path)
        if note is None:
            note = self._make(planned, path)
        elif self._batch is not None:
            self._batch = apply_outcome(self._batch, load_outcome(path))
        self._shard = self._shard.advance(key, path)
        # Problems may be many: where they stand is passed on, not what they say.
        found = [str(path)] if note["problems"] else []
        self._notes.append({**{name: note[name] for name in _FIGURES}, "found": found})
        if note["dropped"]:
            self._dropped.append(str(self._conceal(path.with_suffix(".dropped"), key)))

    def _make(self, planned: Planned, path: Path) -> dict[str, Any]:
        batch = self._load()
        outcome = self._apply(planned, batch)
        after = apply_outcome(batch, outcome)
        reasons = outcome.reasons
        dropped = None if reasons is None else describe_dropped(batch, reasons, planned.id)
        kinds: dict[str, int] = {}
        for reason in dropped.column("reason").to_pylist() if dropped else ():
            kinds[name_reason(reason)] = kinds.get(name_reason(reason), 0) + 1
        note = {
            "step": planned.id,
            "rows_in": len(batch),
            "rows_out": len(after),
            "drops": kinds,
            "dropped": sum(kinds.values()),
            "counts": outcome.counts,
            "problems": outcome.problems,
        }
        save_outcome(path, outcome, dropped, note)
        self._batch = after
        return note

    def _apply(self, planned: Planned, batch: pa.RecordBatch) -> Outcome:
        step: Any = prepare(planned)
        if planned is self._segment.survey:
            outcome: Outcome = step.apply_decision(batch, BatchFile(Path(self._segment.decision))[0])
        else:
            outcome = step.apply(batch)
        return outcome

    def _conceal(self, path: Path, key: str) -> Path:
        """What a step dropped, by the recipe's redaction: kept apart, for the drop itself does not depend on that."""
        concealing = self._segment.concealing
        if not concealing:
            return path
        concealed = place(self._cache, "dropped", chain_key(key, *(planned.key for planned in concealing)))
        if open_batches(concealed) is None:
            dropped = BatchFile(path)[0]
            texts = dropped.column("text")
            for planned in concealing:
                step: Any = prepare(planned)
                texts = step.rewrite(texts)
            at = dropped.schema.get_field_index("text")
            save_batch(concealed, dropped.set_column(at, dropped.schema.field(at), texts))
        return concealed

    def _sketch(self, planned: Planned) -> str:
        path = place(self._cache, "sketches", chain_key(planned.key, self._shard.key))
        if open_batches(path) is None:
            step: Any = prepare(planned)
            save_batch(path, step.sketch(self._load()))
        return str(path)

    def _load(self) -> pa.RecordBatch:
        if self._batch is None:
            self._batch = load_shard(self._shard)
        return self._batch


def chain_key(*keys: str) -> str:
    """The key of what comes of applying one thing to another."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def place(cache: Path, kind: str, key: str) -> Path:
    """Where the cache keeps something under its key."""
    return cache / kind / key[:2] / f"{key[2:]}.arrow"


class LazyShards(Sequence[pa.RecordBatch]):
    """Shards as a survey reads them again: each loaded when asked for, none kept."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = tuple(shards)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, number: Any) -> Any:
        return load_shard(self._shards[number])


class LazySketches(Sequence[pa.RecordBatch]):
    """Sketches, each mapped when asked for."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: Any) -> Any:
        return BatchFile(Path(self._paths[number]))[0]
