"""Runs a recipe's steps over all shards: segments of transforms side by side, surveys in between. Knows no step.

A survey needs all shards; what lies between two surveys is one segment, done shard by shard on whatever worker is free.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from espalier.core.events import Emit, Event
from espalier.core.ids import make_id
from espalier.data.flow.chain import (
    Done,
    LazyShards,
    LazySketches,
    Planned,
    Segment,
    chain_key,
    prepare,
    run_segment,
)
from espalier.data.flow.files import load_json, open_batches, save_batch, save_json
from espalier.data.flow.shard import Shard
from espalier.data.flow.spread import Spread

_PROGRESS_S = 0.5


@dataclass(slots=True)
class Report:
    """One step's figures over all shards."""

    step: str
    rows_in: int = 0
    rows_out: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)  # outcomes whose notes tell problems

    def add(self, note: dict[str, Any]) -> None:
        self.rows_in += note["rows_in"]
        self.rows_out += note["rows_out"]
        self.drops.update(note["drops"])
        self.counts.update(note["counts"])
        self.found += note.get("found", ())


@dataclass(slots=True)
class Flow:
    """Where things are kept and run."""

    cache: Path
    spread: Spread
    emit: Emit


@dataclass(slots=True)
class Flowed:
    """The shards after all steps, each step's report, and the files of what was dropped, in corpus order a step."""

    shards: list[Shard]
    reports: list[Report]
    dropped: list[str]


def run_steps(flow: Flow, shards: Sequence[Shard], plan: Sequence[Planned]) -> Flowed:
    """Run the steps in order over every shard. Raises what a step raises; what is done is kept."""
    concealing = tuple(planned for planned in plan if planned.name == "redact")
    out = Flowed(list(shards), [], [])
    segments = list(split_plan(plan))
    decisions: list[tuple[str, str]] = []
    for survey, transforms, following in segments:
        steps = ([survey] if survey else []) + list(transforms)
        tasks = (
            Segment(shard, str(flow.cache), survey, *given, tuple(transforms), following, concealing)
            for shard, given in zip(out.shards, decisions or itertools.repeat(("", "")), strict=bool(decisions))
        )
        done = list(_watch(flow, flow.spread(run_segment, tasks), len(out.shards), [step.id for step in steps]))
        _take_over(out, done, steps, flow.emit)
        if following:
            flow.emit(Event("data.survey", {"step": following.id, "rows": sum(r.rows_out for r in out.reports[-1:])}))
            decisions = decide(flow, following, out.shards, [item.sketch for item in done])
    return out


def split_plan(plan: Sequence[Planned]) -> Iterator[tuple[Planned | None, list[Planned], Planned | None]]:
    """(survey to apply first, transforms, survey to sketch for) for each segment."""
    leading: Planned | None = None
    transforms: list[Planned] = []
    for planned in plan:
        if hasattr(prepare(planned), "decide"):
            yield leading, transforms, planned
            leading, transforms = planned, []
        else:
            transforms.append(planned)
    yield leading, transforms, None


def decide(flow: Flow, survey: Planned, shards: Sequence[Shard], sketches: Sequence[str]) -> list[tuple[str, str]]:
    """The survey's decision for each shard, as (path, digest); made only when any shard or the survey has changed."""
    folder = flow.cache / "decisions" / chain_key(survey.key, *(shard.key for shard in shards))
    known = load_json(folder / "done.json")
    if known is not None and all(open_batches(Path(path)) for path, _ in known):
        return [(path, digest) for path, digest in known]
    step: Any = prepare(survey)
    work = flow.cache / "work" / make_id("work")
    work.mkdir(parents=True)
    out = []
    try:
        made = step.decide(LazySketches(sketches), LazyShards(shards), work, flow.spread)
        for number, decision in enumerate(made):
            path = folder / f"{number:06d}.arrow"
            save_batch(path, decision)
            out.append((str(path), digest_batch(decision)))
    finally:
        remove_tree(work)
    save_json(folder / "done.json", out)
    return out


def digest_batch(batch: pa.RecordBatch) -> str:
    """sha256 of a batch's values."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours and all in it."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _take_over(out: Flowed, done: Sequence[Done], steps: Sequence[Planned], emit: Emit) -> None:
    out.shards = [item.shard for item in done]
    for number, planned in enumerate(steps):
        report = Report(planned.id)
        for item in done:
            report.add(item.notes[number])
        out.reports.append(report)
        told = {
            "step": report.step,
            "kept": report.rows_out,
            "drops": dict(report.drops),
            "counts": dict(report.counts),
        }
        emit(Event("data.step", told))
    out.dropped += [path for item in done for path in item.dropped]


def _watch(flow: Flow, results: Iterator[Done], total: int, steps: list[str]) -> Iterator[Done]:
    started = last = time.monotonic()
    for count, result in enumerate(results, 1):
        yield result
        now = time.monotonic()
        if now - last >= _PROGRESS_S:
            last = now
            left_s = (now - started) / count * (total - count)
            told = {"steps": steps, "shards": count, "of_shards": total, "eta_s": round(left_s, 1)}
            flow.emit(Event("data.progress", told))
