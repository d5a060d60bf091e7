"""Tasks of reading: the answer is bound to the words around it, or has to be told from what is said.

Each function throws one question and its only right answer. Knows nothing of stages, mixes or tokens.
"""

from __future__ import annotations

from collections.abc import Callable

from espalier.data.synth import labels, values
from espalier.data.synth import vocabulary as words
from espalier.data.synth.asking import AS_FORMAT, Desk, Task, ask, quiet_sentence
from espalier.data.synth.draw import Draw
from espalier.data.synth.formats import Record, render, render_xml
from espalier.data.synth.scenes import Scene, filler_sentence, tell_scene, write_scene
from espalier.data.synth.sheets import SHEETS, fill_sheet


def find(desk: Desk) -> Task:
    """One field out of a scene, asked for in words."""
    draw = desk.draw
    scene = write_scene(draw, fields=(2, 7), classes=(0, 1), filler=(0, 4))
    field, value = draw.pick(scene.fields)
    return ask(draw, draw.pick(_FIND).format(field.question), scene.text), value


def extract(desk: Desk) -> Task:
    """Two to five fields out of a scene in one format."""
    draw = desk.draw
    scene = write_scene(draw, fields=(2, 7), classes=(0, 1), filler=(0, 5))
    asked = draw.sample(scene.fields, draw.between(1, 5))
    return _request(draw, scene, [(field.key, field.question, value) for field, value in asked])


def classify(desk: Desk) -> Task:
    """One class of a short text or a scene, named in one of the three ways."""
    draw = desk.draw
    if draw.chance(0.5):
        label_set = draw.pick(labels.SETS)
        meaning, phrasing = labels.draw_class(draw, label_set)
        text = phrasing if draw.chance(0.5) else f"{phrasing[0].upper()}{phrasing[1:]}. {filler_sentence(draw)}"
    else:
        scene = write_scene(draw, fields=(0, 4), classes=(1, 2), filler=(0, 4))
        (label_set, meaning), text = draw.pick(scene.classes), scene.text
    naming = draw.pick(_NAMINGS)(draw, label_set)
    question = draw.pick(_CLASSIFY).format(label_set=label_set, legend=naming.legend)
    return ask(draw, question, text), naming.names[meaning]


def classify_many(desk: Desk) -> Task:
    """Three to eight short texts of one set, a class for each."""
    draw = desk.draw
    label_set = draw.pick(labels.SETS)
    naming = draw.pick(_NAMINGS)(draw, label_set)
    drawn = [labels.draw_class(draw, label_set) for _ in range(draw.between(3, 8))]
    text = "\n".join([f"{i}. {phrasing}" for i, (_, phrasing) in enumerate(drawn, 1)])
    answer = "\n".join([f"{i}. {naming.names[meaning]}" for i, (meaning, _) in enumerate(drawn, 1)])
    return ask(draw, f"The {label_set} of each line ({naming.legend}).", text), answer


def combine(desk: Desk) -> Task:
    """Four to eight things in one answer: fields to copy and one to three classes."""
    draw = desk.draw
    scene = write_scene(draw, fields=(4, 9), classes=(1, 3), filler=(2, 9))
    asked = [(field.key, field.question, value) for field, value in draw.sample(scene.fields, draw.between(3, 6))]
    for label_set, meaning in scene.classes:
        naming = draw.pick(_NAMINGS)(draw, label_set)
        asked.append((label_set, f"the {label_set} ({naming.legend})", naming.names[meaning]))
    return _request(draw, scene, draw.shuffled(asked) if draw.chance(0.8) else asked)


def fill(desk: Desk) -> Task:
    """A sheet known by name alone, filled from a scene that also says what the sheet does not ask."""
    draw = desk.draw
    sheet = draw.pick(SHEETS)
    others = [field for field in sheet.domain.fields if field not in sheet.fields]
    told = draw.shuffled([*sheet.fields, *draw.sample(others, draw.between(0, 4))])
    scene = tell_scene(draw, sheet.domain, told, sheet.label_sets, draw.between(2, 9))
    values_told = {field.key: value for field, value in scene.fields}
    answers = [values_told[field.key] for field in sheet.fields]
    answers += [codes[meaning] for codes, (_, meaning) in zip(sheet.codes, scene.classes, strict=True)]
    return ask(draw, draw.pick(_FILL).format(sheet.name), scene.text), fill_sheet(sheet, answers)


def small_talk(desk: Desk) -> Task:
    """Short plain questions about a sentence: who, what, when."""
    draw = desk.draw
    who, what, when, where = values.person(draw), values.clause(draw), draw.pick(words.WEEKDAYS), values.place(draw)
    text = draw.pick(
        (
            "{who} {what} on {when} in {where}.",
            "On {when}, {who} {what} in {where}.",
            "In {where}, {who} {what}. It was a {when}.",
        )
    ).format(who=who, what=what, when=when, where=where)
    question, reply = draw.pick(
        (
            (f"Who {what}?", f"{who} {what}."),
            (f"What did {who} do?", f"{who} {what}."),
            ("When did it happen?", f"It happened on {when}."),
            ("Where did it happen?", f"It happened in {where}."),
            ("On which day was it?", when),
            ("Who was it?", who),
        )
    )
    return ask(draw, question, f"{text} {quiet_sentence(desk)}" if draw.chance(0.5) else text), reply


def name_intent(desk: Desk) -> Task:
    """A real question to a bank, and what it is about, out of a few intents or out of all of them."""
    draw = desk.draw
    text, intent = draw.pick(desk.english.intents)
    if draw.chance(0.4):
        return ask(draw, draw.pick(("What does the customer want?", "Intent?", "Name the intent.")), text), intent
    others = [name for name in draw.sample(desk.english.intent_names, draw.between(2, 6)) if name != intent]
    choices = draw.shuffled([intent, *others])
    if draw.chance(0.4):
        codes = {name: f"{draw.pick('KPQSTVX')}{i}" for i, name in enumerate(choices, 1)}
        return ask(
            draw, "Intent code: " + "; ".join([f"{code} = {name}" for name, code in codes.items()]), text
        ), codes[intent]
    return ask(draw, "Intent, one of: " + ", ".join(choices), text), intent


def answer(desk: Desk) -> Task:
    """A question with the answer a person wrote."""
    return desk.draw.pick(desk.english.answers)


def _request(draw: Draw, scene: Scene, asked: list[tuple[str, str, str]]) -> Task:
    """The request for (key, question, value)s out of a scene, and the record."""
    if draw.chance(0.25):
        asked = [
            (f"{values.word(draw)}{i}" if draw.chance(0.3) else values.word(draw), question, value)
            for i, (_, question, value) in enumerate(asked)
        ]
    keys = [key for key, _, _ in asked]
    asked = [one for i, one in enumerate(asked) if one[0] not in keys[:i]]
    record: Record = [(key, value) for key, _, value in asked]
    name, result = (render_xml if draw.chance(0.4) else render)(draw, record)
    spelled_out = [key if question in (f"the {key}", key) else f"{key}: {question}" for key, question, _ in asked]
    wanted = (", " if draw.chance(0.6) else "\n").join(spelled_out)
    return ask(draw, draw.pick(AS_FORMAT).format(keys=wanted, format=name), scene.text), result


_NAMINGS: tuple[Callable[[Draw, str], labels.Naming], ...] = (
    labels.name_by_meaning, labels.name_by_meaning, labels.name_by_code,
    labels.name_by_heart, labels.name_by_heart, labels.name_by_heart,
)  # fmt: skip
_FILL = (
    "Write the {} sheet.", "Fill in the {} sheet.", "The {} sheet, please.", "{} sheet:", "Make a {} sheet of this.",
    "Write the {} sheet of this text.", "As {} sheet.",
)  # fmt: skip
_FIND = (
    "What is {}?",
    "Find {}.",
    "Give {}.",
    "Tell me {}.",
    "Which is {}?",
    "I need {}.",
    "Please give me {}.",
    "Read the text. What is {}?",
)
_CLASSIFY = (
    "Which {label_set}? {legend}", "{label_set}: {legend}", "Sort by {label_set}. {legend}",
    "Give the {label_set} ({legend}).", "Label the {label_set}.\n{legend}",
    "What is the {label_set}? Choose: {legend}",
)  # fmt: skip
