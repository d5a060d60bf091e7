"""Examples as Label Studio's JSON tasks, and the labelling configuration that shows them.

Formats: https://labelstud.io/guide/tasks (basic JSON), https://labelstud.io/tags (each control's value). A task carries
in its data which example it shows (`espalier`), so that what comes back finds its way.

Known records go out as predictions, as Label Studio takes annotations only from its own users.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from espalier.core.errors import InvalidInput
from espalier.core.types import Example
from espalier.data.annotation.record import AnnotationRecord, Labels, Preference, Rating, Repair
from espalier.data.annotation.review import (
    Control,
    LabelControl,
    PairwiseControl,
    RatingControl,
    ReviewSpec,
    SpanControl,
    left_of,
    parts_of,
)

_SIDES = ("left", "right")
_SIDE_BY_SIDE = "display: grid; grid-template: auto / 1fr 1fr; column-gap: 16px"


def write_config(review: ReviewSpec, examples: Sequence[Example]) -> str:
    """The labelling configuration (XML) for tasks of these examples. Raises InvalidInput for a control without text."""
    kinds = dict.fromkeys(tuple(parts_of(example)) for example in examples)
    if len(kinds) != 1:
        raise InvalidInput(
            f"examples of {len(kinds)} kinds: {'; '.join(', '.join(kind) for kind in kinds) or 'none'}",
            hint="one labelling configuration fits conversations, or raw texts, or pairs",
        )
    (shown,) = kinds
    view = Element("View")
    # Else runs of white space are folded on display, and the offsets of spans are those of another text.
    SubElement(view, "Style").text = ".htx-text { white-space: pre-wrap; }"
    if review.title:
        SubElement(view, "Header", value=review.title)
    if "left" in shown:
        SubElement(view, "Text", name="question", value="$question")
        pair = SubElement(view, "View", style=_SIDE_BY_SIDE)
        for side in _SIDES:
            SubElement(pair, "Text", name=side, value=f"${side}")
    else:
        for name in shown:
            SubElement(view, "Text", name=name, value=f"${name}")
    for control in review.controls:
        _add_control(view, control, shown)
    indent(view, "  ")
    return tostring(view, encoding="unicode") + "\n"


def write_tasks(
    examples: Iterable[Example], dataset: str, review: ReviewSpec, records: Iterable[AnnotationRecord] = ()
) -> list[dict[str, Any]]:
    """Tasks in the order of `examples`; what is known of them goes along as predictions, one for each annotator.

    dataset: the version's artifact digest.
    """
    known: dict[str, dict[str, list[AnnotationRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        known[record.example][record.annotator].append(record)
    names = [control.name for control in review.controls]
    spans = {control.name: control.part for control in review.controls if isinstance(control, SpanControl)}
    scales = {control.name: control.scale for control in review.controls if isinstance(control, RatingControl)}
    tasks = []
    for example in examples:
        about: dict[str, Any] = {"example": example.id, "dataset": dataset, "spans": spans, "scales": scales}
        if example.chosen:
            about["left"] = left_of(example)
        predictions = []
        for annotator, said in sorted(known[example.id].items()):
            results = [each for record in said if record.question in names for each in _write_value(record, example)]
            if results:
                predictions.append({"model_version": annotator, "result": results})
        data: dict[str, Any] = {**parts_of(example), "espalier": about}
        tasks.append({"data": data, "predictions": predictions})
    return tasks


def _add_control(view: Element, control: Control, shown: Sequence[str]) -> None:
    if control.guide:
        SubElement(view, "Header", value=control.guide, size="5")
    wanted: tuple[str, ...] = _SIDES if isinstance(control, PairwiseControl) else (_main_part(shown),)
    if isinstance(control, SpanControl):
        wanted = (control.part,)
    missing = [part for part in wanted if part not in shown]
    if missing:
        raise InvalidInput(
            f"control {control.name!r} needs the text {missing[0]!r}, which these examples do not have",
            hint=f"they have {', '.join(shown) or 'none'}",
        )
    about = {"name": control.name, "toName": ",".join(wanted)}
    if isinstance(control, RatingControl):
        SubElement(view, "Rating", about, maxRating=str(control.scale))
    elif isinstance(control, LabelControl):
        choices = SubElement(view, "Choices", about, choice="multiple" if control.multiple else "single-radio")
        for label in control.labels:
            SubElement(choices, "Choice", value=label)
    elif isinstance(control, SpanControl):
        labels = SubElement(view, "Labels", about)
        for label in control.labels:
            SubElement(labels, "Label", value=label)
    elif isinstance(control, PairwiseControl):
        SubElement(view, "Pairwise", about)
    else:
        SubElement(view, "TextArea", about, value=f"${wanted[0]}", rows="6", editable="true", maxSubmissions="1")


def _main_part(shown: Sequence[str]) -> str:
    """The text that most controls speak of: the answer, or the only text there is."""
    return next((part for part in ("answer", "text", "left") if part in shown), "answer")


def _write_value(record: AnnotationRecord, example: Example) -> list[dict[str, Any]]:
    """A record's value as results of Label Studio; none for what it cannot show (no span, a tie)."""
    value, target = record.value, _main_part(tuple(parts_of(example)))
    if isinstance(value, Rating):
        return [_result(record, 0, "rating", target, {"rating": value.value})]
    if isinstance(value, Labels):
        return [_result(record, 0, "choices", target, {"choices": list(value.labels)})]
    if isinstance(value, Repair):
        return [_result(record, 0, "textarea", target, {"text": [value.text]})]
    if isinstance(value, Preference):
        if value.better == "tie":
            return []
        side = "left" if value.better == left_of(example) else "right"
        return [_result(record, 0, "pairwise", "left", {"selected": side})]
    return [
        _result(record, number, "labels", value.part, {**span.model_dump(exclude={"label"}), "labels": [span.label]})
        for number, span in enumerate(value.spans)
    ]


def _result(record: AnnotationRecord, number: int, kind: str, target: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{record.id[4:14]}-{number}",
        "from_name": record.question,
        "to_name": target,
        "type": kind,
        "value": value,
    }
