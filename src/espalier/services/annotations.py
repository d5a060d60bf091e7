"""Annotations: what people, rules and models say of a dataset version's examples, and what is made of it.

Records are kept in the store, one immutable record each; a change of mind is a further one. Files (Label Studio's,
JSON lines) are how they come and go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.faults import refuse
from espalier.core.operations import operation
from espalier.core.types import Run, Spec
from espalier.services.annotationlog import example_ids, load_records, save_record, save_records, snapshot
from espalier.services.catalogue import find_dataset

if TYPE_CHECKING:
    from espalier.data.annotation.record import AnnotationRecord
    from espalier.data.annotation.review import ReviewSpec
    from espalier.services.context import Context


class AddAnnotation(Spec):
    """One word on one example."""

    ref: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    example: str = Field(description="id of the example")
    kind: Literal["rating", "label", "span", "pairwise", "repair"] = Field(description="what is said")
    value: str = Field(
        description="a mark; labels with | between; chosen, rejected or tie; the mended text; "
        'or spans as JSON: [{"start": 0, "end": 3, "label": "name"}]'
    )
    question: str = Field("", description="what was asked; empty = quality, label, spans, preference or repair")
    scale: int = Field(5, ge=2, le=100, description="of a rating: the best mark")
    part: Literal["question", "answer", "text"] = Field("answer", description="of spans: in which text")
    gold: bool = Field(False, description="this is the last word")
    note: str = Field("", description="why")


class AnnotationView(Spec):
    """A record as it was kept."""

    id: str
    dataset: str
    example: str
    question: str
    annotator: str
    by: str
    at_ms: int
    said: str
    gold: bool
    note: str = ""


@operation("annotations.add", "POST /v1/annotations", positional=("ref", "example", "kind", "value"))
def add(context: Context, request: AddAnnotation) -> AnnotationView:
    """Say something of one example: a rating, labels, spans, which of a pair is better, or the mended answer.

    Example:
        espalier annotations add support 3f2a rating 4
    """
    from espalier.core.ids import now_ms
    from espalier.data.annotation.record import make_record

    version = find_dataset(context.store, request.ref)
    if request.example not in example_ids(context, version):
        raise NotFound(f"no example {request.example!r} in {version.ref}", hint="`espalier data show` names some")
    question = request.question or _USUAL_QUESTION[request.kind]
    record = make_record(
        version.digest, request.example, question, _parse_value(request), context.actor, at_ms=now_ms(),
        gold=request.gold, note=request.note,
    )  # fmt: skip
    save_record(context, record)
    return _show(record)


class ListAnnotations(Spec):
    """Whose words on what."""

    ref: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    example: str = Field("", description="of this example only")
    history: bool = Field(False, description="also what was said before the last word of each annotator")
    limit: int = Field(100, ge=1, le=100_000, description="so many at most")


@operation("annotations.list", "GET /v1/annotations", positional=("ref",))
def list_all(context: Context, request: ListAnnotations) -> list[AnnotationView]:
    """List what was said of a dataset version."""
    from espalier.data.annotation.record import keep_newest

    records = load_records(context, find_dataset(context.store, request.ref).digest)
    found = records if request.history else keep_newest(records)
    wanted = [record for record in found if request.example in ("", record.example)]
    return [_show(record) for record in wanted[: request.limit]]


class ExportAnnotations(Spec):
    """Which examples, for whom."""

    ref: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    folder: str = Field(description="folder to write tasks.json and config.xml into; annotations.jsonl besides")
    review: str = Field(
        "", description="YAML file: title, controls (see docs/annotation.md); empty = rating and repair"
    )
    split: Literal["", "train", "validation", "test"] = Field("", description="of this split only")
    limit: int = Field(0, ge=0, description="so many examples at most; 0 = all")
    disagreements: bool = Field(False, description="only those on which annotators differ, the most at odds first")


class Exported(Spec):
    """What was written."""

    tasks: str
    config: str
    records: str
    examples: int


@operation("annotations.export", "POST /v1/annotations/export", positional=("ref", "folder"), role="admin")
def export(context: Context, request: ExportAnnotations) -> Exported:
    """Write Label Studio tasks and a labelling configuration; what is known goes along as predictions.

    Example:
        espalier annotations export support review/ --limit 200
    """
    from espalier.data.annotation.labelstudio.tasks import write_config, write_tasks
    from espalier.data.annotation.queue import queue_disagreements
    from espalier.data.annotation.record import append_records, keep_newest
    from espalier.store.disk import write_file
    from espalier.store.examples import read_examples

    version = find_dataset(context.store, request.ref)
    examples = list(read_examples(context.store.artifacts.materialise(version.digest), request.split or None))
    records = keep_newest(load_records(context, version.digest))
    if request.disagreements:
        by_id = {example.id: example for example in examples}
        queued = dict.fromkeys(each.example for each in queue_disagreements(records))
        examples = [by_id[id] for id in queued if id in by_id]
    examples = examples[: request.limit or None]
    if not examples:
        raise InvalidInput(f"nothing of {version.ref} to export", hint="check --split, or take --disagreements away")
    review = _load_review(context, request.review)
    folder = context.place(request.folder)
    config = write_config(review, examples)
    tasks = write_tasks(examples, version.digest, review, records)
    write_file(folder / "config.xml", config.encode())
    write_file(folder / "tasks.json", json.dumps(tasks, ensure_ascii=False, indent=1).encode() + b"\n")
    (folder / "annotations.jsonl").unlink(missing_ok=True)
    append_records(folder / "annotations.jsonl", records)
    paths = {name: str(folder / file) for name, file in _EXPORTED.items()}
    return Exported(**paths, examples=len(examples))


_EXPORTED = {"tasks": "tasks.json", "config": "config.xml", "records": "annotations.jsonl"}


class ImportAnnotations(Spec):
    """What people answered."""

    ref: str = Field(description="dataset:NAME@vN that was annotated, or just NAME for its newest version")
    file: str = Field(description="Label Studio's JSON export, or annotations as JSON lines (.jsonl)")
    name: tuple[str, ...] = Field((), description="WHO=NAME: what to call the export's user, e.g. 3=ada")
    strict: bool = Field(False, description="take nothing when something cannot be read")


class ImportReport(Spec):
    """What arrived."""

    read: int
    new: int
    annotators: dict[str, int]
    problems: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 1 if self.problems else 0


@operation("annotations.import", "POST /v1/annotations/import", positional=("ref", "file"), role="admin")
def import_file(context: Context, request: ImportAnnotations) -> ImportReport:
    """Take in annotations; importing the same file again adds nothing.

    Example:
        espalier annotations import support export.json --name 3=ada
    """
    from collections import Counter

    from espalier.data.annotation.labelstudio.answers import Imported, read_export
    from espalier.data.annotation.record import read_records

    version = find_dataset(context.store, request.ref)
    path = context.place(request.file)
    known = example_ids(context, version)
    if path.suffix == ".jsonl":
        found = Imported(read_records(path))
    elif path.is_file():
        found = read_export(path.read_bytes(), names=_parse_names(request.name), known=known)
    else:
        raise NotFound(f"no file {path}", hint="check the path")
    mine = []
    for record in found.records:
        if record.example not in known:
            found.problems.append(f"{record.id}: no example {record.example} in {version.ref}")
        else:
            mine.append(record)
    if found.problems and request.strict:
        raise InvalidInput("\n".join(found.problems[:20]), where=str(path), hint="mend it, or import without --strict")
    new = save_records(context, mine, dataset=version.digest)
    annotators = Counter(record.annotator for record in mine)
    return ImportReport(
        read=len(mine), new=new, annotators=dict(sorted(annotators.items())), problems=tuple(found.problems)
    )


class NameAnnotated(Spec):
    """Which version's annotations."""

    ref: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")


class AgreementView(Spec):
    """For every question: figures over all annotators, and between every two."""

    questions: tuple[dict[str, Any], ...]

    def to_text(self) -> str:
        """One line for each figure."""
        lines = []
        for each in self.questions:
            names = ", ".join(f"{name} {count}" for name, count in each["annotators"].items())
            lines.append(f"{each['question']} ({each['kind']}): {each['examples']} examples with several of {names}")
            lines += [f"  {_say_figure(figure)}" for figure in each["figures"]]
            for pair in each["pairs"]:
                shown = [pair["figure"], *([pair["equal"]] if pair["figure"]["name"] != "equal" else [])]
                lines += [f"  {pair['first']} and {pair['second']}: {_say_figure(figure)}" for figure in shown]
        return "\n".join(lines) or "nobody has annotated it"


@operation("annotations.agreement", "GET /v1/annotations/agreement", positional=("ref",))
def agreement(context: Context, request: NameAnnotated) -> AgreementView:
    """Measure how far annotators agree: kappa, alpha and span F1, with 95 % intervals.

    Example:
        espalier annotations agreement support
    """
    from espalier.data.annotation.report import measure_agreement

    records = load_records(context, find_dataset(context.store, request.ref).digest)
    return AgreementView(questions=tuple(each.model_dump(mode="json") for each in measure_agreement(records)))


class QueueDisagreements(NameAnnotated):
    """Which version, and how many."""

    limit: int = Field(20, ge=1, le=100_000, description="so many at most")


class QueuedView(Spec):
    """An example that waits for the last word."""

    example: str
    question: str
    disagreement: float  # 0 to 1
    said: str  # who said what


@operation("annotations.queue", "GET /v1/annotations/queue", positional=("ref",))
def queue(context: Context, request: QueueDisagreements) -> list[QueuedView]:
    """List what annotators disagree on, the most at odds first, until somebody has the last word.

    Example:
        espalier annotations queue support
    """
    from espalier.data.annotation.queue import queue_disagreements

    records = load_records(context, find_dataset(context.store, request.ref).digest)
    return [
        QueuedView(
            example=each.example,
            question=each.question,
            disagreement=round(each.disagreement, 4),
            said=", ".join(f"{annotator}: {word}" for annotator, word in each.said.items()),
        )
        for each in queue_disagreements(records)[: request.limit]
    ]


class AnnotateDataset(Spec):
    """Which annotator, on which data."""

    recipe: str = Field(description="YAML file: name, control, rules or model (see `config schema annotate`)")
    ref: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    prompt: str = Field("", description="prompt:NAME@vN in place of the one that is shipped")


@operation(
    "annotations.annotate", "POST /v1/annotations/annotate", shape="job", positional=("recipe", "ref"), role="admin"
)
def annotate(context: Context, request: AnnotateDataset) -> Run:
    """Have rules or a model annotate a dataset version, as one annotator among others.

    Example:
        espalier annotations annotate money.yaml support
    """
    from espalier.core.ids import now_ms
    from espalier.core.recipefile import load_recipe
    from espalier.core.refs import Ref
    from espalier.data.annotation.automatic import AnnotateSpec
    from espalier.data.annotation.record import read_records, stamp
    from espalier.services.execution import execute_step

    path = context.place(request.recipe)
    inputs = {"dataset": str(Ref.parse(request.ref, kind="dataset"))}
    if request.prompt:
        inputs["prompt"] = str(Ref.parse(request.prompt, kind="prompt"))
    spec = load_recipe(path, AnnotateSpec)
    run = execute_step(context, "data.annotate", spec, name=spec.name, folder=path.parent, inputs=inputs)
    for digest in run.outputs.values():
        records = read_records(context.store.artifacts.materialise(digest))
        save_records(context, [stamp(record, now_ms()) for record in records])
    return run


class ApplyAnnotations(Spec):
    """Whose word, on which data."""

    recipe: str = Field(
        description="YAML file: name, rule, least_rating, leave_out, tag ... (see `config schema apply`)"
    )
    ref: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")


@operation("annotations.apply", "POST /v1/annotations/apply", shape="job", positional=("recipe", "ref"), role="admin")
def apply(context: Context, request: ApplyAnnotations) -> Run:
    """Make a new version by the annotators' word: answers mended, poor rows left out, labels as tags.

    Example:
        espalier annotations apply reviewed.yaml support
    """
    from espalier.core.recipefile import load_recipe
    from espalier.data.annotation.apply import ApplySpec
    from espalier.services.execution import execute_step

    version = find_dataset(context.store, request.ref)
    path = context.place(request.recipe)
    spec = load_recipe(path, ApplySpec)
    inputs = {"dataset": version.ref, "annotations": f"sha256:{snapshot(context, version)}"}
    return execute_step(context, "data.apply_annotations", spec, name=spec.name, folder=path.parent, inputs=inputs)


_USUAL_QUESTION = {
    "rating": "quality", "label": "label", "span": "spans", "pairwise": "preference", "repair": "repair",
}  # fmt: skip


def _parse_value(request: AddAnnotation) -> Any:
    """The value a request speaks of. Raises InvalidInput."""
    from pydantic import TypeAdapter, ValidationError

    from espalier.data.annotation.record import Value

    fields: dict[str, Any] = {"kind": request.kind}
    try:
        if request.kind == "rating":
            fields |= {"value": request.value, "scale": request.scale}
        elif request.kind == "label":
            fields["labels"] = sorted({label.strip() for label in request.value.split("|") if label.strip()})
        elif request.kind == "span":
            fields |= {"part": request.part, "spans": json.loads(request.value)}
        else:
            fields["better" if request.kind == "pairwise" else "text"] = request.value
        return TypeAdapter(Value).validate_python(fields)
    except ValidationError as error:
        raise refuse(error, fields, what=f"{request.value!r:.80} is no {request.kind}", where="value") from None
    except ValueError as error:
        raise InvalidInput(f"{request.value!r:.80} is no {request.kind}: {error}", where="value") from None


def _parse_names(pairs: Iterable[str]) -> dict[str, str]:
    names = {}
    for pair in pairs:
        who, equals, name = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(f"--name {pair}: no name", hint="write --name 3=ada")
        names[who] = name
    return names


def _load_review(context: Context, file: str) -> ReviewSpec:
    from espalier.core.recipefile import load_recipe
    from espalier.data.annotation.review import ReviewSpec

    return load_recipe(context.place(file), ReviewSpec) if file else ReviewSpec()


def _show(record: AnnotationRecord) -> AnnotationView:
    from espalier.data.annotation.queue import describe

    kept = record.model_dump(include=set(AnnotationView.model_fields) - {"said"})
    return AnnotationView(said=describe(record.value), **kept)


def _say_figure(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return f"{figure['name']} undefined (n={figure['n']})"
    return f"{figure['name']} {figure['value']:.3f} [{figure['ci_low']:.3f}, {figure['ci_high']:.3f}] (n={figure['n']})"
