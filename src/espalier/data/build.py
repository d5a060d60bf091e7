"""`build_dataset`: sources -> documents -> cleaned -> examples -> splits -> a folder that never changes again.

The conductor of this package. Knows no store and no clock. What it does on the way is kept in a cache by content, so a
build that was killed, or whose recipe was changed at the end, goes on from what is there.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit, Event, ignore
from espalier.core.types.examples import Split
from espalier.data.clean.ids import IdsSpec
from espalier.data.flow.cache import open_cache
from espalier.data.flow.chain import chain_key, place
from espalier.data.flow.files import BatchFile, save_batch
from espalier.data.flow.intake import ReadSource, read_sources, size_of
from espalier.data.flow.plan import hash_tree, plan_steps
from espalier.data.flow.record import describe_dropped
from espalier.data.flow.run import Flow, Flowed, Report, digest_batch, run_steps
from espalier.data.flow.shard import cut_shards, load_shard
from espalier.data.flow.workers import open_spread
from espalier.data.harvest import Harvest, harvest_shards
from espalier.data.layout import LEFT_OUT, Placed, write_exclusions, write_manifest, write_problems, write_rows
from espalier.data.leaks import check_leaks
from espalier.data.manifest import DatasetManifest, SourceEntry, StepReport, name_reason, name_skip
from espalier.data.parsing import plan_task
from espalier.data.readers.licence import read_licence
from espalier.data.readers.places import locate_sources
from espalier.data.readers.problem import Problem
from espalier.data.readers.problem import Tally as Problems
from espalier.data.readers.source import SkippedFile, SourceFile
from espalier.data.spec import DataSpec
from espalier.data.split import Drawn, draw_splits
from espalier.data.tally import Tally, distribute_counts
from espalier.store.examples import SPLITS

_SMALL_BYTES = 16 << 20


@dataclass(slots=True)
class Build:
    """A dataset version while it is being made."""

    spec: DataSpec
    sources: list[SourceFile]
    skipped: list[SkippedFile]
    read: list[ReadSource] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    found_later: list[dict[str, Any]] = field(default_factory=list)  # problems that steps found, as JSON
    reports: list[StepReport] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)  # files of what steps left out
    harvests: list[Harvest] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    label_count: int = 0
    licences: dict[str, dict[str, str]] = field(default_factory=dict)


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
        raise InvalidInput(_nothing_left(build), where=", ".join(spec.source.paths), hint=_first_reasons(build))
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
    build.reports.append(_to_report(report, build.spec.leaks))


def write_build(flow: Flow, build: Build, out_dir: Path) -> DatasetManifest:
    """Write the folder; the manifest comes last."""
    placed = [
        Placed(harvest, drawn.splits, drawn.groups)
        for harvest, drawn in zip(build.harvests, build.drawn, strict=True)
        if harvest.rows
    ]
    write_rows(flow.spread, placed, out_dir)
    write_exclusions(out_dir, _list_unread(build), build.dropped)
    read = (problem.to_json() for found in build.read for problem in found.problems())
    write_problems(out_dir, itertools.chain(read, build.found_later))
    manifest = describe_build(build)
    write_manifest(out_dir, manifest)
    flow.emit(Event("data.built", _summary(manifest)))
    return manifest


def describe_build(build: Build) -> DatasetManifest:
    """The manifest of what was built."""
    spec, reports = build.spec, build.reports
    tally = Tally()
    for harvest in build.harvests:
        tally.add(harvest.tally())
    splits, strata = count_splits(build.drawn)
    redactions: Counter[str] = Counter()
    drops: Counter[str] = Counter()
    for report in reports:
        drops.update(report.drops)
        if report.step.startswith("redact@"):
            redactions.update({kind: count for kind, count in report.counts.items() if " " not in kind})
    return DatasetManifest(
        name=spec.name,
        description=spec.description,
        licence=spec.licence or " AND ".join(dict.fromkeys(_name_licence(told) for told in build.licences.values())),
        licences=build.licences,
        examples=sum(splits.values()),
        splits=splits,
        documents_read=reports[0].documents_in,
        documents_kept=tally.examples,
        drops=dict(sorted(drops.items())),
        redactions=dict(sorted(redactions.items())),
        labels=tally.list_labels(),
        labels_unused=build.label_count - len(tally.groups) if build.label_count else 0,
        formats=dict(sorted(tally.formats.items())),
        languages=dict(sorted(tally.languages.items())),
        strata=strata if spec.split.stratify_by else {},
        chars=distribute_counts(tally.chars),
        words=distribute_counts(tally.words),
        tokens=distribute_counts(tally.tokens) if spec.tokenizer else None,
        steps=tuple(reports),
        sources=tuple(_describe_source(found) for found in build.read),
        skipped=tuple(sorted(build.skipped, key=lambda item: item.uri)),
        task=spec.task.model_dump(mode="json"),
        split=spec.split.model_dump(mode="json"),
    )


def count_splits(drawn: Sequence[Drawn]) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Examples by split, and by stratum and split."""
    splits: Counter[str] = Counter()
    strata: dict[str, Counter[str]] = {}
    for item in drawn:
        for index, stratum in zip(item.splits.tolist(), item.strata.to_pylist(), strict=True):
            if index == LEFT_OUT:
                continue
            splits[SPLITS[index]] += 1
            strata.setdefault(stratum, Counter())[SPLITS[index]] += 1
    told = {name: dict(sorted(counts.items())) for name, counts in sorted(strata.items())}
    return {split: splits[split] for split in SPLITS}, told


def find_licences(spec: DataSpec, folder: Path) -> dict[str, dict[str, str]]:
    """Licence and attribution of each local folder the sources lie in, by the folder's name, as files there say."""
    found = {}
    for path in spec.source.paths:
        root = folder / path
        home = root if root.is_dir() else root.parent
        licence = read_licence(home) if "://" not in path else None
        if licence:
            told = {**licence.model_dump(exclude={"files"}), "files": ", ".join(licence.files)}
            found[home.resolve().name] = {name: value for name, value in told.items() if value}
    return found


def _name_licence(told: Mapping[str, str]) -> str:
    return told.get("spdx") or told.get("statement", "")


def _take_steps(flow: Flow, build: Build, flowed: Flowed) -> None:
    specs: list[Any] = [*name_first_steps(build.spec), build.spec.task, *build.spec.steps]
    build.reports += [_to_report(report, spec) for report, spec in zip(flowed.reports, specs, strict=True)]
    build.dropped += flowed.dropped
    build.found_later = [told for report in flowed.reports for told in report.problems]
    later = Problems()
    for told in build.found_later:
        later.add(Problem.from_json(told))
    if build.found_later:
        flow.emit(Event("data.problems", {"lines": later.lines()}))


def _to_report(report: Report, spec: Any) -> StepReport:
    return StepReport(
        step=report.step,
        parameters=spec.model_dump(mode="json", exclude={"step", "kind"}),
        documents_in=report.rows_in,
        documents_out=report.rows_out,
        drops=dict(sorted(report.drops.items())),
        counts=dict(sorted(report.counts.items())),
    )


def _describe_source(found: ReadSource) -> SourceEntry:
    rows = sum(part.rows for part in found.parts)
    return SourceEntry(uri=found.source.uri, sha256=found.source.sha256, documents=rows)


def _list_unread(build: Build) -> Iterator[dict[str, Any]]:
    """Files and rows that never became documents, as the exclusion file tells them."""
    blank: dict[str, Any] = {"id": "", "blob": "", "page": 0, "start": 0, "end": 0, "step": "read@2", "text": ""}
    for item in sorted(build.skipped, key=lambda item: item.uri):
        yield {**blank, "uri": item.uri, "blob": item.sha256, "reason": item.reason}
    for found in build.read:
        for problem in found.problems():
            if problem.action == "skip" and problem.kind != "unreadable":
                reason = f"{problem.kind.replace('_', ' ')}: {problem.where}: {problem.message}"
                yield {**blank, "uri": problem.uri, "blob": found.source.sha256, "reason": reason}


def _summary(manifest: DatasetManifest) -> dict[str, Any]:
    unreadable = [item for item in manifest.skipped if item.reason.startswith("unreadable")]
    skipped = Counter(name_skip(item.reason) for item in manifest.skipped)
    return {
        "examples": manifest.examples,
        "splits": manifest.splits,
        "documents_read": manifest.documents_read,
        "documents_kept": manifest.documents_kept,
        "drops": manifest.drops,
        "redactions": manifest.redactions,
        "files_skipped": dict(sorted(skipped.items())),
        "unreadable": [f"{item.uri}: {item.reason.removeprefix('unreadable: ')}" for item in unreadable],
    }


def _nothing_left(build: Build) -> str:
    return f"no example is left of {build.reports[0].documents_in} documents from {len(build.sources)} files"


def _first_reasons(build: Build) -> str:
    drops: Counter[str] = Counter()
    for report in build.reports:
        drops.update(report.drops)
    if not drops and build.skipped:
        return f"{build.skipped[0].uri}: {build.skipped[0].reason}"
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(drops.items()))
    first = next(iter(BatchFile(Path(build.dropped[0]))[0].to_pylist()), None) if build.dropped else None
    return f"dropped: {told}" + (f"; e.g. {first['id']} ({first['uri']}): {first['reason']}" if first else "")
