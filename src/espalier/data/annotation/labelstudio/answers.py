"""Label Studio's JSON export as records: https://labelstud.io/guide/task_format, https://labelstud.io/tags.

Tasks are those of `labelstudio/tasks.py`: each says in its data which example it shows.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from espalier.core.errors import InvalidInput
from espalier.core.faults import list_faults
from espalier.data.annotation.record import (
    AnnotationRecord,
    Labels,
    Part,
    Preference,
    Rating,
    Repair,
    Spans,
    TextSpan,
    Value,
    make_record,
)

_PARTS: tuple[Part, ...] = ("question", "answer", "text")


@dataclass(slots=True)
class Imported:
    """Records, and what could not be read, by task."""

    records: list[AnnotationRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_export(
    data: bytes, *, names: Mapping[str, str] | None = None, known: Collection[str] | None = None
) -> Imported:
    """Records of a JSON export: a list of annotated tasks. Cancelled (skipped) annotations and drafts are left out.

    names: what to call annotators, by the e-mail or the number the export has. known: ids of the version's examples;
    None takes every task that says which example it shows. What cannot be read is a problem, not an error.
    Raises InvalidInput for what is no JSON list of tasks.
    """
    try:
        tasks = json.loads(data)
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}", hint="export as JSON (not JSON-MIN, CSV ...)") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InvalidInput("not a list of tasks", hint="export as JSON (not JSON-MIN, CSV ...)")
    found = Imported()
    for number, task in enumerate(tasks, 1):
        _read_task(task, f"task {task.get('id', number)}", names or {}, known, found)
    return found


def _read_task(
    task: dict[str, Any], where: str, names: Mapping[str, str], known: Collection[str] | None, found: Imported
) -> None:
    data = task.get("data")
    about = data.get("espalier") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(about, dict) or not about.get("example"):
        found.problems.append(f"{where}: it does not say which example it shows (data.espalier.example)")
        return
    if known is not None and about["example"] not in known:
        found.problems.append(f"{where}: no example {about['example']} in this version")
        return
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
        found.problems.append(f"{where}: its annotations are no list of annotations")
        return
    for annotation in annotations:
        if annotation.get("was_cancelled"):
            continue
        try:
            found.records.extend(_read_annotation(annotation, data, about, names))
        except (InvalidInput, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            found.problems.append(f"{where}, annotation {annotation.get('id', '')}: {_explain(error)}")


def _explain(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return list_faults(error, None)[0].said
    return error.message if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}"


def _read_annotation(
    annotation: dict[str, Any], data: dict[str, Any], about: dict[str, Any], names: Mapping[str, str]
) -> list[AnnotationRecord]:
    asked: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in annotation.get("result") or []:
        asked[str(result["from_name"])].append(result)
    for name in about.get("spans") or {}:
        asked.setdefault(name, [])  # submitted without a span: there is none
    return [
        make_record(
            str(about.get("dataset", "")),
            str(about["example"]),
            name,
            _read_value(name, results, data, about),
            _name_annotator(annotation.get("completed_by"), names),
            at_ms=_read_time_ms(annotation),
            gold=bool(annotation.get("ground_truth")),
            lead_time_s=annotation.get("lead_time"),
        )
        for name, results in sorted(asked.items())
    ]


def _read_value(name: str, results: list[dict[str, Any]], data: dict[str, Any], about: dict[str, Any]) -> Value:
    """The value of one control. Raises InvalidInput for a control nobody here knows, KeyError and the like."""
    if not results or results[0]["type"] == "labels":
        return _read_spans(results, data, (about.get("spans") or {}).get(name, "answer"))
    kind, value = results[0]["type"], results[0]["value"]
    if kind == "rating":
        return Rating(value=value["rating"], scale=(about.get("scales") or {}).get(name, 5))
    if kind == "choices":
        return Labels(labels=tuple(sorted({str(label) for label in value["choices"]})))
    if kind == "textarea":
        texts = value["text"]
        return Repair(text=texts if isinstance(texts, str) else "\n".join(texts))
    if kind == "pairwise":
        side, left = value["selected"], about["left"]
        other = "rejected" if left == "chosen" else "chosen"
        return Preference(better={"left": left, "right": other, "none": "tie"}[side])
    raise InvalidInput(f"{results[0]['from_name']} is of kind {kind}, which is not read")


def _read_spans(results: list[dict[str, Any]], data: dict[str, Any], part: Part) -> Spans:
    spans = []
    for result in results:
        value = result["value"]
        if result["to_name"] not in _PARTS:
            raise InvalidInput(f"{result['from_name']} marks {result['to_name']!r}, which is no text of an example")
        part = result["to_name"]
        start, end = _place(str(data[part]), int(value["start"]), int(value["end"]), value.get("text"))
        spans += [
            TextSpan(start=start, end=end, label=str(label), text=str(data[part])[start:end])
            for label in value["labels"]
        ]
    return Spans(part=part, spans=tuple(sorted(spans, key=lambda span: (span.start, span.end, span.label))))


def _place(text: str, start: int, end: int, said: str | None) -> tuple[int, int]:
    """Offsets in characters. Those counted in UTF-16 units, as browsers do, are known by the text they come with."""
    if end > len(text) or (said is not None and text[start:end] != said):
        units = text.encode("utf-16-le")
        first, middle = (units[: 2 * at].decode("utf-16-le", "replace") for at in (start, end))
        if said is None or text[len(first) : len(middle)] != said:
            raise InvalidInput(f"characters {start} to {end} are not {said!r}")
        return len(first), len(middle)
    if not 0 <= start <= end:
        raise InvalidInput(f"characters {start} to {end} are no stretch")
    return start, end


def _name_annotator(who: Any, names: Mapping[str, str]) -> str:
    """`completed_by` is a number, or a user with an e-mail, depending on how it was exported."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    text = str(who) if who is not None else "unknown"
    return names.get(text, f"user-{text}" if text.isdigit() else text)


def _read_time_ms(annotation: dict[str, Any]) -> int:
    text = annotation.get("updated_at") or annotation.get("created_at") or "1970-01-01T00:00:00Z"
    at = datetime.fromisoformat(str(text))
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
