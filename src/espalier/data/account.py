"""What a build says of itself: the manifest, what was never read, the summary, and why nothing is left.

Knows a finished `Build`; reads, computes and writes nothing of the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.data.buildstate import Build
from espalier.data.flow.files import BatchFile
from espalier.data.flow.intake import ReadSource
from espalier.data.flow.run import Report
from espalier.data.layout import LEFT_OUT
from espalier.data.manifest import DatasetManifest, SourceEntry, StepReport, name_skip
from espalier.data.readers.licence import read_licence
from espalier.data.readers.places import list_folders
from espalier.data.spec import DataSpec
from espalier.data.split import Drawn
from espalier.data.tally import Tally, distribute_counts
from espalier.store.examples import SPLITS


def describe_build(build: Build) -> DatasetManifest:
    """The manifest of what was built."""
    spec, reports, tally = build.spec, build.reports, tally_kept(build)
    splits, strata = count_splits(build.drawn)
    return DatasetManifest(
        name=spec.name,
        description=spec.description,
        licence=spec.licence or " AND ".join(dict.fromkeys(_name_licence(told) for told in build.licences.values())),
        licences=build.licences,
        examples=sum(splits.values()),
        splits=splits,
        documents_read=reports[0].documents_in,
        documents_kept=tally.examples,
        drops=sum_drops(reports),
        redactions=sum_redactions(reports),
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


def tally_kept(build: Build) -> Tally:
    """The figures of all examples but those the leak gate left out."""
    tally = Tally()
    for harvest, drawn in zip(build.harvests, build.drawn, strict=True):
        kept = drawn.splits != LEFT_OUT
        tally.add(harvest.tally() if kept.all() else harvest.tally_rows(kept))
    return tally


def sum_drops(reports: Sequence[StepReport]) -> dict[str, int]:
    """Rows by the kind of reason, over all steps."""
    drops: Counter[str] = Counter()
    for report in reports:
        drops.update(report.drops)
    return dict(sorted(drops.items()))


def sum_redactions(reports: Sequence[StepReport]) -> dict[str, int]:
    """Findings of personal data by kind; a redaction's other figures have a blank in their names."""
    redactions: Counter[str] = Counter()
    for report in reports:
        if report.step.startswith("redact@"):
            redactions.update({kind: count for kind, count in report.counts.items() if " " not in kind})
    return dict(sorted(redactions.items()))


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
    found: dict[str, dict[str, str]] = {}
    for root in sorted({root.resolve() for root in list_folders(spec.source, folder)}):
        licence = read_licence(root)
        if not licence:
            continue
        depth = 1
        while (name := "/".join(root.parts[-depth:])) in found:
            depth += 1
        told = {**licence.model_dump(exclude={"files"}), "files": ", ".join(licence.files)}
        found[name] = {key: value for key, value in told.items() if value}
    return dict(sorted(found.items()))


def _name_licence(told: Mapping[str, str]) -> str:
    return told.get("spdx") or told.get("statement", "")


def report_step(report: Report, spec: Any) -> StepReport:
    """A step's figures and parameters as the manifest tells them."""
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


def list_unread(build: Build) -> Iterator[dict[str, Any]]:
    """Files and rows that never became documents, as the exclusion file tells them."""
    blank: dict[str, Any] = {"id": "", "blob": "", "page": 0, "start": 0, "end": 0, "step": "read@2", "text": ""}
    for item in sorted(build.skipped, key=lambda item: item.uri):
        yield {**blank, "uri": item.uri, "blob": item.sha256, "reason": item.reason}
    for found in build.read:
        for problem in found.problems():
            if problem.action == "skip" and problem.kind != "unreadable":
                reason = f"{problem.kind.replace('_', ' ')}: {problem.where}: {problem.message}"
                yield {**blank, "uri": problem.uri, "blob": found.source.sha256, "reason": reason}


def summarise(manifest: DatasetManifest) -> dict[str, Any]:
    """What a person is shown when the version is built."""
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


def explain_nothing_left(build: Build) -> InvalidInput:
    """The error of a build whose every row was dropped, with the reasons and one row."""
    message = f"no example is left of {build.reports[0].documents_in} documents from {len(build.sources)} files"
    return InvalidInput(message, where=", ".join(build.spec.source.paths), hint=_first_reasons(build))


def _first_reasons(build: Build) -> str:
    drops = sum_drops(build.reports)
    if not drops and build.skipped:
        return f"{build.skipped[0].uri}: {build.skipped[0].reason}"
    told = ", ".join(f"{count} {reason}" for reason, count in drops.items())
    first = next(iter(BatchFile(Path(build.dropped[0]))[0].to_pylist()), None) if build.dropped else None
    return f"dropped: {told}" + (f"; e.g. {first['id']} ({first['uri']}): {first['reason']}" if first else "")
