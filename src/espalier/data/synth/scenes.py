"""Scenes: a page of prose that holds some fields, some classes, and much that nobody asks for.

A scene says more than a request will ask: other dates, other numbers, other people. So a model can only answer by
binding a value to the words around it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from espalier.data.synth import labels, values
from espalier.data.synth.domains import DOMAINS, Domain, Field
from espalier.data.synth.draw import Draw


@dataclass(slots=True)
class Scene:
    """`fields` and `classes` are all that the text decides, in no order."""

    domain: Domain
    text: str
    fields: list[tuple[Field, str]]
    classes: list[tuple[str, str]]  # (label set, meaning)


def write_scene(draw: Draw, *, fields: tuple[int, int], classes: tuple[int, int], filler: tuple[int, int]) -> Scene:
    """A scene with so many fields, classes and sentences of no matter (each from low to high)."""
    domain = draw.pick(DOMAINS)
    label_sets = draw.sample(tuple(dict.fromkeys(domain.label_sets)), draw.between(*classes))
    return tell_scene(
        draw, domain, draw.sample(domain.fields, draw.between(*fields)), label_sets, draw.between(*filler)
    )


def tell_scene(draw: Draw, domain: Domain, fields: Sequence[Field], label_sets: Sequence[str], filler: int) -> Scene:
    """A scene that says these fields and sorts by these label sets.

    Two in five are told as a form on top of the text, the way files are kept; the others in sentences alone.
    """
    chosen = [(field, field.make(draw)) for field in fields]
    on_form = draw.between(1, len(chosen)) if chosen and draw.chance(0.4) else 0
    sentences = [draw.pick(field.sentences).format(value) for field, value in chosen[on_form:]]
    decided = []
    for label_set in label_sets:
        meaning, phrasing = labels.draw_class(draw, label_set)
        decided.append((label_set, meaning))
        sentences.append(draw.pick(_QUOTES).format(phrasing) if draw.chance(0.4) else _sentence(phrasing))
    sentences += [filler_sentence(draw) for _ in range(filler)]
    if draw.chance(0.8):
        sentences = draw.shuffled(sentences)
    text = _lay_out(draw, sentences) if sentences else ""
    form = _form(draw, chosen[:on_form]) if on_form else ""
    return Scene(domain, "\n\n".join([part for part in (form, text) if part]), chosen, decided)


def _form(draw: Draw, facts: list[tuple[Field, str]]) -> str:
    """Lines of a label and a value, perhaps under a title, as forms, exports and wikis have them."""
    sign, mark = draw.pick((": ", ": ", ": ", " | ", "\t", " ", " = ")), draw.pick(("", "", "", "- ", "* ", "| "))
    case = draw.pick((str.capitalize, str.capitalize, str.lower, str.upper))
    lines = []
    for field, value in draw.shuffled(facts):
        label = field.key.replace("_", " ") if draw.chance(0.6) else field.question.removeprefix("the ")
        lines.append(f"{mark}{case(label)}{sign}{value}")
    title = draw.pick(_TITLES) if draw.chance(0.3) else ""
    return "\n".join([title, *lines] if title else lines)


def filler_sentence(draw: Draw) -> str:
    """A sentence that decides nothing."""
    roll = draw.random()
    if roll < 0.6:
        return draw.pick(FILLER)
    if roll < 0.7:
        return f"{draw.pick(_SOMEBODY)} {values.clause(draw)}."
    if roll < 0.8:
        return f"{draw.pick(_CUES)} {values.noun_phrase(draw)}."
    return _sentence(values.phrase(draw)) if roll < 0.86 else draw.pick(_FOOTERS)(draw)


def _lay_out(draw: Draw, sentences: list[str]) -> str:
    """As flowing text, one sentence a line, or hard-wrapped as mail programs and PDFs do it."""
    roll = draw.random()
    if roll < 0.5:
        return " ".join(sentences)
    if roll < 0.65:
        return "\n".join(sentences)
    if roll < 0.75:
        return textwrap.fill(" ".join(sentences), draw.between(50, 95), break_long_words=False, break_on_hyphens=False)
    cut = draw.between(1, max(1, len(sentences) - 1))
    first, second = draw.pick(_SECTIONS) if draw.chance(0.5) else ("", "")
    return f"{first}{' '.join(sentences[:cut])}\n\n{second}{' '.join(sentences[cut:])}"


def _sentence(phrasing: str) -> str:
    return phrasing[0].upper() + phrasing[1:] + "."


_QUOTES = (
    '"Hello, {}."', 'The message says: "{}."', "They told us that {}.", '"Hi team, {}, please help."', "In short: {}.",
    "Description: {}.", "It seems that {}.", "She says {}.", "As far as we know, {}.", "> {}", "He added that {}.",
    "Note: {}.", "Remark: {}.", "{}, they say.", "Well, {}.",
)  # fmt: skip
_TITLES = (
    "Report",
    "Service report",
    "File",
    "Case file",
    "Note for the file",
    "Form 12",
    "# Entry",
    "Summary",
    "Record of a call",
)
_SECTIONS = (
    ("Message\n", "Notes\n"), ("message: ", "notes: "), ("Description\n", "Comments\n"),
    ("## Text\n\n", "## Remarks\n\n"), ("They wrote: ", "We noted: "), ("Part one: ", "Part two: "),
    ("Call\n", "Result\n"), ("Body: ", "Answer: "), ("Hello,\n", "-- \n"), ("Dear team, ", "Internal: "),
)  # fmt: skip
_SOMEBODY = (
    "A colleague",
    "Last year they",
    "The neighbour",
    "A friend",
    "In another case we",
    "His boss",
    "Somebody",
    "Years ago a shop",
)
_CUES = (
    "We also looked at the",
    "Please mind the",
    "There was some talk about the",
    "See also the",
    "Do not forget the",
    "The list names the",
)
_LEGAL_FORMS = ("Ltd", "Inc", "GmbH", "Group")
_FOOTERS: tuple[values.Maker, ...] = (
    lambda draw: f"Call us: {values.phone(draw)}",
    lambda draw: f"Mail: {values.email(draw)}",
    lambda draw: f"Printed on {draw.pick(('page', 'sheet'))} {draw.between(1, 9)} of {draw.between(9, 20)}.",
    lambda draw: "Contact: [NAME], [EMAIL]",
    lambda draw: "<PERSON> <EMAIL_ADDRESS> <PHONE_NUMBER>",
    lambda draw: (
        f"Copyright {draw.between(2010, 2029)} {values.brand(draw)} {draw.pick(_LEGAL_FORMS)}. All rights reserved."
    ),
)  # fmt: skip
FILLER = (
    "Thank you for your patience.", "The customer has been with us for years.", "A second agent joined.",
    "We asked for more details.", "The first answer did not help.", "The usual checks were made.",
    "Some photos are attached.", "It was a long day.", "The line was bad.", "Several tests were made.",
    "Notes were added to the file.", "We are sorry for the trouble.", "Please do not reply to this message.",
    "This message may be confidential.", "If you got this by mistake, delete it.", "Have a nice day.", "Best regards",
    "Dear all,", "Hello,", "Good morning,", "Sent from my phone", "Please let me know if you need more.",
    "Thanks in advance.", "We hope to hear from you soon.", "Our desk is open from nine to five.",
    "You can reach us on working days.", "Our address has changed.", "The form was signed.",
    "A copy was sent to the office.", "They were friendly on the phone.", "We will keep you posted.",
    "The answer came after lunch.", "This is a note for the file.", "There were no other questions.",
    "We checked the list twice.", "The rest is in the attachment.", "Home | Products | Support | Contact",
    "Read our terms of service.", "All rights reserved.", "Please think of the trees before you print this.",
    "How did we do? Rate this answer.", "It rained.", "The road was busy.", "She had a cold.", "He was on leave then.",
    "Nobody else was there.", "The meeting went well.", "They came back later.", "We spoke about other things too.",
    "The weather did not matter.",
)  # fmt: skip
