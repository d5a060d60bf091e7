"""Tasks of pointing: the answer stands in the question, letter by letter, and need only be found and copied.

Each function throws one question and its only right answer. Knows nothing of stages, mixes or tokens.
"""

from __future__ import annotations

from espalier.data.synth import values
from espalier.data.synth.asking import AS_FORMAT, Desk, Task, ask, quiet_sentence
from espalier.data.synth.draw import Draw
from espalier.data.synth.formats import Record, render, render_xml


def copy(desk: Desk) -> Task:
    """One to nine values, to be said again."""
    draw = desk.draw
    gap = draw.pick((" ", ", ", " ; ", "\n", " | "))
    text = gap.join([values.anything(draw) for _ in range(draw.between(1, 9))])
    return ask(draw, draw.pick(_COPY), text), text


def copy_long(desk: Desk) -> Task:
    """One kind of hard value (phrases, clauses, products, names), many times over."""
    draw = desk.draw
    make = draw.pick((values.phrase, values.clause, values.clause, values.product, values.product, values.person))
    text = draw.pick(("\n", ", ", "; ")).join([make(draw) for _ in range(draw.between(2, 8))])
    return ask(draw, draw.pick(_COPY), text), text


def pick_item(desk: Desk) -> Task:
    """One item of a numbered list."""
    draw = desk.draw
    items = [values.anything(draw) for _ in range(draw.between(2, 8))]
    at = draw.between(1, len(items))
    text = "\n".join([f"{i}. {item}" for i, item in enumerate(items, 1)])
    return ask(
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
    return ask(draw, question, _list_pairs(draw, record)), value


def convert(desk: Desk) -> Task:
    """Key-value pairs into a format, all of them or those asked for, in the order asked."""
    draw = desk.draw
    record = _random_record(draw, 2, 8)
    text = _list_pairs(draw, record)
    asked = draw.sample(record, draw.between(1, len(record))) if draw.chance(0.5) else record
    name, answer = (render_xml if draw.chance(0.4) else render)(draw, asked)
    question = draw.pick(AS_FORMAT).format(keys=_list_keys(draw, [key for key, _ in asked]), format=name)
    return ask(draw, question, text), answer


def quote(desk: Desk) -> Task:
    """What stands inside a pair of signs."""
    draw = desk.draw
    value = values.anything(draw)
    left, right = draw.pick((('"', '"'), ("(", ")"), ("[", "]"), ("<", ">"), ("*", "*")))
    sentences = [one for one in (quiet_sentence(desk) for _ in range(draw.between(1, 5))) if left not in one]
    sentences.insert(
        draw.between(0, len(sentences)),
        f"{draw.pick(('See', 'Note', 'This is', 'It reads', 'Named'))} {left}{value}{right}.",
    )
    return ask(draw, f"What is inside {left}{right}?", " ".join(sentences)), value


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
    sentences += [quiet_sentence(desk) for _ in range(draw.between(0, 4))]
    at = draw.between(0, len(cues) - 1)
    question = draw.pick(
        ('What follows "{}"?', 'Quote the clause after "{}".', "What did they do? Look after: {}")
    ).format(cues[at].rstrip(":"))
    return ask(draw, question, " ".join(draw.shuffled(sentences))), clauses[at]


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
_CUES = (
    "Our technician", "The team", "Solution:", "In the end we", "Our colleague", "Action:", "Second level",
    "The workshop", "At first the agent", "The customer", "The supplier", "On site we", "Before that, they",
    "Resolution:", "The night shift", "Finally, she", "Her boss", "The courier",
)  # fmt: skip
_KEYS = (
    "name", "id", "code", "date", "price", "item", "ticket", "order", "serial", "opened", "closed", "city",
    "street", "phone", "email", "status", "owner", "user", "title", "size", "colour", "weight", "start", "end",
    "due", "total", "count", "note", "reason", "place", "team", "agent", "product", "device", "fix", "cause",
    "level",
)  # fmt: skip
