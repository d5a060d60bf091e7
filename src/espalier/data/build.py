"""`build_dataset`: sources -> documents -> cleaned -> examples -> splits -> a folder that never changes again.

The conductor of this package. Knows no prompt version (a service passes `render`), no store and no clock.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit, Event, ignore
from espalier.core.types import Example, Message
from espalier.core.types.examples import Split
from espalier.data.answers import read_fields
from espalier.data.clean.outcome import Outcome
from espalier.data.draft import Draft
from espalier.data.layout import write_dataset
from espalier.data.leaks import refuse_leaks
from espalier.data.manifest import DatasetManifest, StepReport, count_reasons
from espalier.data.nearness import find_pairs, hash_text, shingle
from espalier.data.readers.reading import Reading, known_suffixes, read_sources
from espalier.data.readers.source import SkippedFile, find_sources
from espalier.data.spec import DataSpec
from espalier.data.split import Unit, assign_splits, group_units
from espalier.data.steps import CleanStep, prepare_step
from espalier.data.tasks import conversations, extraction, rawtext
from espalier.data.tasks.conversations import ChatTask, CompletionTask
from espalier.data.tasks.extraction import ExtractionTask, Render, render_plain


def build_dataset(
    spec: DataSpec,
    out_dir: Path,
    *,
    source: Path | None = None,
    render: Render = render_plain,
    previous: Mapping[str, Split] | None = None,
    emit: Emit = ignore,
) -> DatasetManifest:
    """Build a dataset version into the folder `out_dir`; the same sources and spec give the same bytes.

    source: the file or folder to read, in place of `spec.source.path`; files that the spec names are looked for in it.
    render: makes the messages before the answer from a document. By default one user message with its text.
    previous: group -> split of an earlier version (`layout.read_assignments`), which then stay as they were.

    Raises NotFound, InvalidInput (nothing to read, a bad label, a leak between splits ...), StorageFull.
    """
    if source is None and not spec.source.path:
        raise InvalidInput("no source is named", where="source.path", hint="write `source: {path: FOLDER}`")
    root = source or Path(spec.source.path)
    draft = read_documents(spec, root, emit)
    clean_documents(draft, root if root.is_dir() else root.parent, emit)
    make_examples(draft, render)
    if not draft.examples:
        raise InvalidInput(_nothing_left(draft), where=str(spec.source.path or root), hint=_first_reasons(draft))
    divide(draft, previous or {})
    manifest = write_dataset(draft, out_dir)
    emit(Event("data.built", _summary(manifest)))
    return manifest


def read_documents(spec: DataSpec, root: Path, emit: Emit = ignore) -> Draft:
    """Find and read the sources; for an extraction also its labels, and the key of each document."""
    task = spec.task
    sources, skipped = find_sources(
        root,
        suffixes=known_suffixes(),
        include=spec.source.include,
        exclude=(*spec.source.exclude, *spec.named_files),
        max_file_bytes=spec.source.max_file_bytes,
    )
    if skipped and spec.source.on_error == "fail":
        _refuse_unreadable(skipped)
    base = root if root.is_dir() else root.parent
    labels = extraction.read_labels(base / task.labels, task) if isinstance(task, ExtractionTask) else None
    messages: dict[str, list[Message]] = {}
    if isinstance(task, ChatTask | CompletionTask):
        found = conversations.read_conversations(sources, task, spec.source.on_error)
        reading, messages = found.reading, found.messages
    else:
        reading = read_sources(sources, on_error=spec.source.on_error, emit=emit)
    draft = Draft(spec, sources, [*skipped, *reading.skipped], reading.documents, messages=messages, labels=labels)
    draft.dropped_at = {document.id: "read" for document in reading.documents if document.dropped_because}
    draft.reports.append(_report_reading(draft, reading))
    if isinstance(task, ExtractionTask):
        draft.keys = extraction.find_keys(draft.kept, task)
    return draft


def clean_documents(draft: Draft, root: Path, emit: Emit = ignore) -> None:
    """Run the steps in order, then (for an extraction) drop what has no label."""
    rewriters = []
    for spec in draft.spec.steps:
        step = prepare_step(spec, root)
        run_step(draft, step, emit)
        if step.rewrite:
            rewriters.append(step.rewrite)

    def rewrite(text: str) -> str:
        return functools.reduce(lambda so_far, each: each(so_far), rewriters, text)

    for turns in draft.messages.values():
        for message in turns:
            message.content = rewrite(message.content)
    task = draft.spec.task
    if isinstance(task, ExtractionTask) and draft.labels:
        labelled = extraction.check_labelled(draft.documents, draft.keys, draft.labels, task, rewrite)
        draft.advance("label@1", task.model_dump(mode="json"), Outcome(labelled))
        draft.answers = {document.id: rewrite(draft.labels.answers[draft.keys[document.id]]) for document in draft.kept}
        draft.groups = {document.id: conceal(draft.keys[document.id], rewrite) for document in draft.kept}


def conceal(key: str, rewrite: Callable[[str], str]) -> str:
    """A key as it may be shown: itself, or a hash where redaction would change it (somebody's mail address)."""
    return key if rewrite(key) == key else f"key-{hash_text(key):016x}"


def run_step(draft: Draft, step: CleanStep, emit: Emit = ignore) -> None:
    """Apply one step to the draft's documents and note what it did."""
    outcome = step.apply(draft.documents)
    report = draft.advance(step.id, step.spec.model_dump(mode="json", exclude={"step"}), outcome)
    told = {"step": step.id, "kept": report.documents_out, "drops": report.drops, "counts": report.counts}
    emit(Event("data.step", told))


def make_examples(draft: Draft, render: Render) -> None:
    """One example for each kept document."""
    task = draft.spec.task
    for document in draft.kept:
        if isinstance(task, ExtractionTask):
            draft.examples.append(extraction.make_example(document, draft.answers[document.id], render))
        elif isinstance(task, ChatTask | CompletionTask):
            draft.examples.append(conversations.make_example(document, draft.messages[document.id]))
        else:
            draft.examples.append(rawtext.make_example(document))


def divide(draft: Draft, previous: Mapping[str, Split]) -> None:
    """Give each example its split, its group and its stratum; raise InvalidInput when two splits share a text."""
    spec = draft.spec.split
    units = []
    for document, example in zip(draft.kept, draft.examples, strict=True):
        key = draft.groups.get(document.id) or f"text-{hash_text(document.text):016x}"
        example.tags["group"] = key
        units.append(Unit(key, "|".join(_stratum_part(example, name) for name in spec.stratify_by)))
    draft.strata = [unit.stratum for unit in units]
    near = find_pairs([shingle(document.text) for document in draft.kept], spec.near)
    splits = assign_splits(units, near, spec, previous)
    if "train" not in splits:
        tied = max(map(len, group_units(units, near).values()))
        raise InvalidInput(
            f"no example is left to train on: {tied} of {len(units)} are tied together by being alike",
            where="split.near",
            hint=f"raise it above {spec.near}, if examples may be that much alike across splits; or give more examples",
        )
    for example, split in zip(draft.examples, splits, strict=True):
        example.split = split
    refuse_leaks(draft.examples, near)


def _stratum_part(example: Example, name: str) -> str:
    if name.startswith("label:"):
        answer = example.messages[-1].content if example.messages else ""
        return read_fields(answer).get(name.removeprefix("label:"), "")
    return example.tags.get(name, "")


def _report_reading(draft: Draft, reading: Reading) -> StepReport:
    return StepReport(
        step="read@1",
        parameters=draft.spec.source.model_dump(mode="json", exclude={"path"}),
        documents_in=len(reading.documents),
        documents_out=len(draft.kept),
        drops=count_reasons(reading.documents),
        counts={"files": len(draft.sources), "files_skipped": len(draft.skipped)},
    )


def _summary(manifest: DatasetManifest) -> dict[str, Any]:
    unreadable = [item for item in manifest.skipped if item.reason.startswith("unreadable")]
    return {
        "examples": manifest.examples,
        "splits": manifest.splits,
        "documents_read": manifest.documents_read,
        "documents_kept": manifest.documents_kept,
        "drops": manifest.drops,
        "redactions": manifest.redactions,
        "files_skipped": len(manifest.skipped),
        "unreadable": [f"{item.uri}: {item.reason.removeprefix('unreadable: ')}" for item in unreadable],
    }


def _refuse_unreadable(skipped: Sequence[SkippedFile]) -> None:
    for item in skipped:
        if item.reason.startswith("unreadable"):
            raise InvalidInput(item.reason, where=item.uri, hint="mend it, or set `source.on_error: skip`")


def _nothing_left(draft: Draft) -> str:
    return f"no example is left of {len(draft.documents)} documents from {len(draft.sources)} files"


def _first_reasons(draft: Draft) -> str:
    drops = count_reasons(draft.documents)
    if not drops and draft.skipped:
        return f"{draft.skipped[0].uri}: {draft.skipped[0].reason}"
    first = next((f"e.g. {d.id} ({d.span.uri}): {d.dropped_because}" for d in draft.documents if d.dropped_because), "")
    return f"dropped: {', '.join(f'{count} {reason}' for reason, count in drops.items())}; {first}"
