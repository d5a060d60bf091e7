"""`build_dataset`: sources -> documents -> cleaned -> examples -> splits -> a folder that never changes again.

The conductor of this package. Knows no store and no clock. What it does on the way is kept in a cache by content, so a
build that was killed, or whose recipe was changed at the end, goes on from what is there.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit, Event, ignore
from espalier.core.types.examples import Split
from espalier.data.account import (
    describe_build,
    explain_nothing_left,
    find_licences,
    list_unread,
    report_step,
    summarise,
)
from espalier.data.buildstate import Build
from espalier.data.clean.ids import IdsSpec
from espalier.data.division import TRAIN
from espalier.data.flow.cache import open_cache
from espalier.data.flow.chain import chain_key, place
from espalier.data.flow.files import save_batch
from espalier.data.flow.intake import read_sources, size_of
from espalier.data.flow.plan import hash_tree, plan_steps
from espalier.data.flow.record import describe_dropped
from espalier.data.flow.run import Flow, Flowed, Report, digest_batch, run_steps
from espalier.data.flow.shard import cut_shards, load_shard
from espalier.data.flow.workers import open_spread
from espalier.data.harvest import harvest_shards
from espalier.data.layout import LEFT_OUT, Placed, write_exclusions, write_manifest, write_problems, write_rows
from espalier.data.leaks import check_leaks
from espalier.data.manifest import DatasetManifest, StepReport, name_reason
from espalier.data.parsing import plan_task
from espalier.data.readers.places import locate_sources
from espalier.data.readers.problem import Tally as Problems
from espalier.data.readers.source import SkippedFile
from espalier.data.spec import DataSpec
from espalier.data.split import draw_splits

_SMALL_BYTES = 16 << 20


def build_dataset(
    spec: DataSpec,
    out_dir: Path,
    *,
    source: Path | None = None,
    folder: Path | None = None,
    cache: Path | None = None,
    previous: Mapping[str, Split] | None = None,
    emit: Emit = ignore,
) -> DatasetManifest:
    """Build a dataset version into the folder `out_dir`; the same sources and spec give the same bytes.

    source: the file or folder to read, in place of `spec.source.path`; files that the spec names are looked for in it.
    folder: where the spec's relative paths start; the working folder by default.
    cache: where what was read and computed is kept by content, for the next build; nowhere by default.
    previous: group -> split of an earlier version (`layout.read_assignments`), which then stay as they were.

    Raises NotFound, InvalidInput (nothing to read, a bad label, a leak between splits ...), StorageFull.
    """
    if source is not None:
        folder = source if source.is_dir() else source.parent
        path = "." if source.is_dir() else source.name
        spec = spec.model_copy(update={"source": spec.source.model_copy(update={"path": path})})
    with open_cache(cache) as kept:
        build = start_build(spec, folder or Path(), kept)
        with open_spread(choose_workers(build), spec.where) as spread:
            flow = Flow(kept, spread, emit)
            run_build(flow, build, folder or Path(), previous or {})
            return write_build(flow, build, out_dir)


def start_build(spec: DataSpec, folder: Path, cache: Path) -> Build:
    """Find the sources. Raises what `locate_sources` raises."""
    sources, skipped = locate_sources(spec.source, folder, cache / "fetched", exclude=spec.named_files)
    return Build(spec, sources, skipped, licences=find_licences(spec, folder))


def choose_workers(build: Build) -> int:
    """As many as the recipe says; where it leaves it open, one for what is read before a second has started."""
    size_bytes = sum(size_of(source) for source in build.sources)
    return build.spec.workers or (1 if size_bytes < _SMALL_BYTES else 0)


def run_build(flow: Flow, build: Build, folder: Path, previous: Mapping[str, Split]) -> None:
    """Everything but finding and writing. Raises what `build_dataset` raises."""
    spec = build.spec
    home = spec.home(folder)
    steps = plan_steps(spec.steps, home)
    task = plan_task(spec.task, steps, home)
    read_build(flow, build, keep_rows=task.needs_rows)
    shards = list(cut_shards(part for found in build.read for part in found.parts))
    flowed = run_steps(flow, shards, [*plan_steps(name_first_steps(spec), home), task.planned, *steps])
    _take_steps(flow, build, flowed)
    tokenizer = folder / spec.tokenizer if spec.tokenizer else None
    build.harvests = list(
        harvest_shards(
            flow,
            flowed.shards,
            task.planned,
            str(tokenizer.absolute()) if tokenizer else "",
            hash_tree(tokenizer) if tokenizer else "",
        )
    )
    build.label_count = task.label_count
    if not any(item.rows for item in build.harvests):
        raise explain_nothing_left(build)
    with tempfile.TemporaryDirectory(dir=flow.cache, prefix="split-") as work:
        build.drawn = list(draw_splits(build.harvests, spec.split, previous, Path(work), flow.spread))
        leaking = list(check_leaks(build.harvests, build.drawn, spec.leaks, home, Path(work), flow.spread))
    leave_out(flow, build, leaking)


def name_first_steps(spec: DataSpec) -> tuple[IdsSpec, ...]:
    """What comes before the task: rows that share an id, where the sources have ids."""
    action: Any = spec.source.options().problems["duplicate_id"]
    return (IdsSpec(column=spec.source.id, duplicates=action),) if spec.source.id else ()


def read_build(flow: Flow, build: Build, *, keep_rows: bool) -> None:
    """Read the sources. Raises InvalidInput where the policy of a problem is to refuse."""
    options = build.spec.source.options(keep_rows=keep_rows)
    left_out = 0
    for found in read_sources(flow, build.sources, options):
        build.read.append(found)
        for problem in found.problems():
            build.problems.add(problem)
            if problem.action == "refuse":
                raise problem.to_error()
            if problem.kind == "unreadable":
                skipped = SkippedFile(
                    uri=problem.uri, reason=f"unreadable: {problem.message}", sha256=found.source.sha256
                )
                build.skipped.append(skipped)
            elif problem.action == "skip":
                left_out += problem.rows
    kept = sum(part.rows for found in build.read for part in found.parts)
    drops = {kind.replace("_", " "): rows for (kind, action), rows in build.problems.rows.items() if action == "skip"}
    drops.pop("unreadable", None)
    counts = {"files": len(build.sources), "files_skipped": len(build.skipped), **build.problems.counts}
    parameters = build.spec.source.model_dump(mode="json", exclude={"path"})
    build.reports.append(
        StepReport(
            step="read@2",
            parameters=parameters,
            documents_in=kept + left_out,
            documents_out=kept,
            drops=dict(sorted(drops.items())),
            counts=counts,
        )
    )
    flow.emit(Event("data.problems", {"lines": build.problems.lines()}))


def leave_out(flow: Flow, build: Build, leaking: Sequence[pa.StringArray | None]) -> None:
    """Take the rows that have a reason out of their split, and keep them for the exclusion file."""
    if not any(reasons is not None for reasons in leaking):
        return
    report = Report("leaks@1")
    for number, reasons in enumerate(leaking):
        harvest, drawn = build.harvests[number], build.drawn[number]
        gone = None if reasons is None else describe_dropped(load_shard(harvest.shard), reasons, report.step)
        kinds = Counter(map(name_reason, gone.column("reason").to_pylist())) if gone else Counter()
        report.add(
            {"rows_in": harvest.rows, "rows_out": harvest.rows - sum(kinds.values()), "drops": kinds, "counts": {}}
        )
        if gone:
            path = place(flow.cache, "leaks", chain_key(harvest.key, digest_batch(gone)))
            save_batch(path, gone)
            build.dropped.append(str(path))
            kept = np.asarray(pc.is_null(reasons))
            build.drawn[number] = replace(drawn, splits=np.where(kept, drawn.splits, LEFT_OUT).astype(np.uint8))
    build.reports.append(report_step(report, build.spec.leaks))
    if not any((drawn.splits == TRAIN).any() for drawn in build.drawn):
        hint = "give more documents, or other evaluation sets: what was left out may not be learned from"
        raise InvalidInput("no example is left to train on: all that were leak", where="leaks", hint=hint)


def write_build(flow: Flow, build: Build, out_dir: Path) -> DatasetManifest:
    """Write the folder; the manifest comes last."""
    placed = [
        Placed(harvest, drawn.splits, drawn.groups)
        for harvest, drawn in zip(build.harvests, build.drawn, strict=True)
        if harvest.rows
    ]
    write_rows(flow.spread, placed, out_dir)
    write_exclusions(out_dir, list_unread(build), build.dropped)
    write_problems(out_dir, (problem.to_json() for problem in build.list_problems()))
    manifest = describe_build(build)
    write_manifest(out_dir, manifest)
    flow.emit(Event("data.built", summarise(manifest)))
    return manifest


def _take_steps(flow: Flow, build: Build, flowed: Flowed) -> None:
    specs: list[Any] = [*name_first_steps(build.spec), build.spec.task, *build.spec.steps]
    build.reports += [report_step(report, spec) for report, spec in zip(flowed.reports, specs, strict=True)]
    build.dropped += flowed.dropped
    build.found_later = [path for report in flowed.reports for path in report.found]
    later = Problems()
    for problem in build.list_later_problems():
        later.add(problem)
    if later.rows:
        flow.emit(Event("data.problems", {"lines": later.lines()}))
