"""A model as annotator: asked through a prompt, read in a form, as in `data/generate`. Same records as a person's."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

from espalier.core.types import Example, Message
from espalier.data.annotation.automatic import AnnotateSpec
from espalier.data.annotation.record import Annotations, Labels, Rating, Value, make_record
from espalier.data.annotation.review import Control, LabelControl, RatingControl, parts_of
from espalier.data.generate.asking import Asker, Reply
from espalier.data.generate.forms import Choice, Verdict
from espalier.data.generate.templates import PromptVersion, Template

ANNOTATE = Template(
    "annotate",
    1,
    "You annotate examples exactly as you are told. You answer with one JSON object and nothing else.",
    """\
{{ guide }}

----------
{{ example }}
----------

{% if labels %}Choose {{ "every label that applies" if multiple else "one label" }}: {{ labels }}.

Answer in this form:
{"labels": ["..."], "reason": "..."}{% else %}Mark it from 1 (worst) to {{ scale }} (best).

Answer in this form:
{"score": 1, "reason": "..."}{% endif %}""",
)


def annotate_by_model(
    examples: Sequence[Example], dataset: str, spec: AnnotateSpec, prompt: PromptVersion, asker: Asker
) -> Annotations:
    """What the model says of each example, in order; an answer that cannot be read is a refusal, never a guess."""
    asked = [prompt.fill(_variables(example, spec.control)) for example in examples]
    found = Annotations()
    for example, (value, note, reply) in zip(examples, _ask(asked, spec, asker), strict=True):
        if value is None:
            found.refused[example.id] = note
            continue
        detail = {
            "model": asker.subject,
            "prompt": prompt.ref,
            "prompt_digest": prompt.digest,
            "answer": reply.digest,
        }
        found.records.append(
            make_record(
                dataset, example.id, spec.control.name, value, spec.name, at_ms=0, by="model", note=note, detail=detail
            )
        )
    return found


def _ask(asked: list[list[Message]], spec: AnnotateSpec, asker: Asker) -> Iterator[tuple[Value | None, str, Reply]]:
    """For each question: what was said and why; or nothing, and why not."""
    control = spec.control
    if isinstance(control, LabelControl):
        check = functools.partial(_check_choice, control)
        for chosen in asker.fill(asked, spec.sampling, Choice, check=check, what="labels"):
            if chosen.form is None:
                yield None, chosen.reason, chosen.reply
            else:
                yield Labels(labels=tuple(sorted(set(chosen.form.labels)))), chosen.form.reason, chosen.reply
        return
    scale = control.scale if isinstance(control, RatingControl) else 5
    score = functools.partial(_check_score, scale)
    for rated in asker.fill(asked, spec.sampling, Verdict, check=score, what="ratings"):
        if rated.form is None:
            yield None, rated.reason, rated.reply
        else:
            yield Rating(value=rated.form.score, scale=scale), rated.form.reason, rated.reply


def _variables(example: Example, control: Control) -> Mapping[str, str]:
    parts = [f"[{name}]\n{text}" for name, text in parts_of(example).items()]
    return {
        "guide": control.guide or f"Judge the {control.name} of this example.",
        "example": "\n\n".join(parts),
        "labels": ", ".join(control.labels) if isinstance(control, LabelControl) else "",
        "multiple": "yes" if isinstance(control, LabelControl) and control.multiple else "",
        "scale": str(control.scale) if isinstance(control, RatingControl) else "",
    }


def _check_choice(control: LabelControl, choice: Choice) -> str:
    unknown = sorted(set(choice.labels) - set(control.labels))
    if unknown:
        return f"{unknown[0]!r} is not among the labels"
    return "" if control.multiple or len(choice.labels) == 1 else "exactly one label was asked for"


def _check_score(scale: int, verdict: Verdict) -> str:
    return "" if verdict.score <= scale else f"score {verdict.score} is above {scale}"
