"""The curriculum's tasks: each function throws one question and its only right answer.

A task is (what the user says, what the assistant answers). Knows nothing of stages, mixes or tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from espalier.data.synth import labels, values
from espalier.data.synth import vocabulary as words
from espalier.data.synth.draw import Draw
from espalier.data.synth.english import English
from espalier.data.synth.formats import Record, render, render_xml
from espalier.data.synth.scenes import Scene, filler_sentence, tell_scene, write_scene
from espalier.data.synth.sheets import SHEETS, fill_sheet

Task = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Desk:
    """What a task is made with: the dice, and the English that was found."""

    draw: Draw
    english: English


def copy(desk: Desk) -> Task:
    """One to nine values, to be said again."""
    draw = desk.draw
    gap = draw.pick((" ", ", ", " ; ", "\n", " | "))
    text = gap.join([values.anything(draw) for _ in range(draw.between(1, 9))])
    return _ask(draw, draw.pick(_COPY), text), text


def copy_long(desk: Desk) -> Task:
    """One kind of hard value (phrases, clauses, products, names), many times over."""
    draw = desk.draw
    make = draw.pick((values.phrase, values.clause, values.clause, values.product, values.product, values.person))
    text = draw.pick(("\n", ", ", "; ")).join([make(draw) for _ in range(draw.between(2, 8))])
    return _ask(draw, draw.pick(_COPY), text), text


def pick_item(desk: Desk) -> Task:
    """One item of a numbered list."""
    draw = desk.draw
    items = [values.anything(draw) for _ in range(draw.between(2, 8))]
    at = draw.between(1, len(items))
    text = "\n".join([f"{i}. {item}" for i, item in enumerate(items, 1)])
    return _ask(
        draw, draw.pick(("Give item {}.", "Number {}?", "What stands at {}?", "Copy line {}.")).format(at), text
    ), items[at - 1]


def look_up(desk: Desk) -> Task:
    """The value of one key out of several."""
    draw = desk.draw
    record = _random_record(draw, 2, 9)
    key, value = draw.pick(record)
    question = draw.pick(("What is {}?", "{}?", "Give {}.", "Look up {}.", "Which value has {}?", "Find {}.")).format(
        key
    )
    return _ask(draw, question, _list_pairs(draw, record)), value


def convert(desk: Desk) -> Task:
    """Key-value pairs into a format, all of them or those asked for, in the order asked."""
    draw = desk.draw
    record = _random_record(draw, 2, 8)
    text = _list_pairs(draw, record)
    asked = draw.sample(record, draw.between(1, len(record))) if draw.chance(0.5) else record
    name, answer = (render_xml if draw.chance(0.4) else render)(draw, asked)
    question = draw.pick(_CONVERT).format(keys=_list_keys(draw, [key for key, _ in asked]), format=name)
    return _ask(draw, question, text), answer


def find(desk: Desk) -> Task:
    """One field out of a scene, asked for in words."""
    draw = desk.draw
    scene = write_scene(draw, fields=(2, 7), classes=(0, 1), filler=(0, 4))
    field, value = draw.pick(scene.fields)
    return _ask(draw, draw.pick(_FIND).format(field.question), scene.text), value


def extract(desk: Desk) -> Task:
    """Two to five fields out of a scene in one format."""
    draw = desk.draw
    scene = write_scene(draw, fields=(2, 7), classes=(0, 1), filler=(0, 5))
    asked = draw.sample(scene.fields, draw.between(1, 5))
    return _fill(draw, scene, [(field.key, field.question, value) for field, value in asked])


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
    return _ask(draw, question, text), naming.names[meaning]


def classify_many(desk: Desk) -> Task:
    """Three to eight short texts of one set, a class for each."""
    draw = desk.draw
    label_set = draw.pick(labels.SETS)
    naming = draw.pick(_NAMINGS)(draw, label_set)
    drawn = [labels.draw_class(draw, label_set) for _ in range(draw.between(3, 8))]
    text = "\n".join([f"{i}. {phrasing}" for i, (_, phrasing) in enumerate(drawn, 1)])
    answer = "\n".join([f"{i}. {naming.names[meaning]}" for i, (meaning, _) in enumerate(drawn, 1)])
    return _ask(draw, f"The {label_set} of each line ({naming.legend}).", text), answer


def combine(desk: Desk) -> Task:
    """Four to eight things in one answer: fields to copy and one to three classes."""
    draw = desk.draw
    scene = write_scene(draw, fields=(4, 9), classes=(1, 3), filler=(2, 9))
    asked = [(field.key, field.question, value) for field, value in draw.sample(scene.fields, draw.between(3, 6))]
    for label_set, meaning in scene.classes:
        naming = draw.pick(_NAMINGS)(draw, label_set)
        asked.append((label_set, f"the {label_set} ({naming.legend})", naming.names[meaning]))
    return _fill(draw, scene, draw.shuffled(asked) if draw.chance(0.8) else asked)


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
    return _ask(draw, draw.pick(_FILL).format(sheet.name), scene.text), fill_sheet(sheet, answers)


def quote(desk: Desk) -> Task:
    """What stands inside a pair of signs."""
    draw = desk.draw
    value = values.anything(draw)
    left, right = draw.pick((('"', '"'), ("(", ")"), ("[", "]"), ("<", ">"), ("*", "*")))
    sentences = [one for one in (_sentence(desk) for _ in range(draw.between(1, 5))) if left not in one]
    sentences.insert(
        draw.between(0, len(sentences)),
        f"{draw.pick(('See', 'Note', 'This is', 'It reads', 'Named'))} {left}{value}{right}.",
    )
    return _ask(draw, f"What is inside {left}{right}?", " ".join(sentences)), value


def follow(desk: Desk) -> Task:
    """The clause that follows a cue, up to where it ends; other clauses stand around it."""
    draw = desk.draw
    cues = draw.sample(_CUES, draw.between(2, 4))
    clauses = [values.clause(draw) for _ in cues]
    ends = [
        draw.pick(
            ("; done on {}.", " on {}.", ", finished {}.", ".", ".", "; the customer confirmed on {}.", ". Closed {}.")
        )
        for _ in cues
    ]
    sentences = [
        f"{cue} {clause}{end.format(values.date(draw))}" for cue, clause, end in zip(cues, clauses, ends, strict=True)
    ]
    sentences += [_sentence(desk) for _ in range(draw.between(0, 4))]
    at = draw.between(0, len(cues) - 1)
    question = draw.pick(
        ('What follows "{}"?', 'Quote the clause after "{}".', "What did they do? Look after: {}")
    ).format(cues[at].rstrip(":"))
    return _ask(draw, question, " ".join(draw.shuffled(sentences))), clauses[at]


def name_intent(desk: Desk) -> Task:
    """A real question to a bank, and what it is about, out of a few intents or out of all of them."""
    draw = desk.draw
    text, intent = draw.pick(desk.english.intents)
    if draw.chance(0.4):
        return _ask(draw, draw.pick(("What does the customer want?", "Intent?", "Name the intent.")), text), intent
    others = [name for name in draw.sample(desk.english.intent_names, draw.between(2, 6)) if name != intent]
    choices = draw.shuffled([intent, *others])
    if draw.chance(0.4):
        codes = {name: f"{draw.pick('KPQSTVX')}{i}" for i, name in enumerate(choices, 1)}
        return _ask(
            draw, "Intent code: " + "; ".join([f"{code} = {name}" for name, code in codes.items()]), text
        ), codes[intent]
    return _ask(draw, "Intent, one of: " + ", ".join(choices), text), intent


def answer(desk: Desk) -> Task:
    """A question with the answer a person wrote."""
    return desk.draw.pick(desk.english.answers)


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
    return _ask(draw, question, f"{text} {_sentence(desk)}" if draw.chance(0.5) else text), reply


def _fill(draw: Draw, scene: Scene, asked: list[tuple[str, str, str]]) -> Task:
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
    return _ask(draw, draw.pick(_CONVERT).format(keys=wanted, format=name), scene.text), result


def _ask(draw: Draw, instruction: str, text: str) -> str:
    roll = draw.random()
    if roll < 0.5:
        return f"{instruction}\n{text}"
    if roll < 0.6:
        return f"{instruction}\n\n{text}"
    return f"{text}\n{instruction}" if roll < 0.9 else f"{text}\n\n{instruction}"


def _random_record(draw: Draw, low: int, high: int) -> Record:
    keys = dict.fromkeys(
        [values.word(draw) if draw.chance(0.7) else draw.pick(_KEYS) for _ in range(draw.between(low, high))]
    )
    return [(key, values.anything(draw)) for key in keys]


def _list_pairs(draw: Draw, record: Record) -> str:
    sign, gap = draw.pick((": ", " = ", " -> ", " is ", "=", "\t")), draw.pick(("\n", "\n", "; ", ". ", ", "))
    return gap.join([f"{key}{sign}{value}" for key, value in draw.shuffled(record)])


def _list_keys(draw: Draw, keys: list[str]) -> str:
    return draw.pick((", ", ", ", " ", " and ")).join(keys)


def _sentence(desk: Desk) -> str:
    if desk.english.sentences and desk.draw.chance(0.4):
        return desk.draw.pick(desk.english.sentences)
    return filler_sentence(desk.draw)


_NAMINGS: tuple[Callable[[Draw, str], labels.Naming], ...] = (
    labels.name_by_meaning, labels.name_by_code, labels.name_by_code, labels.name_by_heart, labels.name_by_heart,
)  # fmt: skip
_COPY = (
    "Repeat:",
    "Copy this:",
    "Say again:",
    "Echo:",
    "Write this once more.",
    "The same again, please.",
    "Copy the text.",
    "Repeat the words exactly.",
)
_CONVERT = (
    "Give {keys} as {format}.", "Write {format} with {keys}.", "{format}: {keys}", "Answer as {format}. Wanted: {keys}", "Extract {keys}. Format: {format}.",
    "Turn this into {format}: {keys}", "Fill in {keys} ({format}).", "I need {keys}, written as {format}.",
)  # fmt: skip
_FILL = (
    "Write the {} sheet.", "Fill in the {} sheet.", "The {} sheet, please.", "{} sheet:", "Make a {} sheet of this.", "Write the {} sheet of this text.", "As {} sheet.",
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
    "Which {label_set}? {legend}", "{label_set}: {legend}", "Sort by {label_set}. {legend}", "Give the {label_set} ({legend}).", "Label the {label_set}.\n{legend}",
    "What is the {label_set}? Choose: {legend}",
)  # fmt: skip
_CUES = (
    "Our technician", "The team", "Solution:", "In the end we", "Our colleague", "Action:", "Second level", "The workshop", "At first the agent", "The customer",
    "The supplier", "On site we", "Before that, they", "Resolution:", "The night shift", "Finally, she", "Her boss", "The courier",
)  # fmt: skip
_KEYS = tuple(
    """name id code date price item ticket order serial opened closed city street phone email status owner user title
    size colour weight start end due total count note reason place team agent product device fix cause level""".split()
)
