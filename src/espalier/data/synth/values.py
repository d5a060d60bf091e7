"""Made-up values: names, ids, dates, products, phrases and clauses, from spaces too big to learn by heart.

Each function takes a `Draw` and gives a string. None of them is a real person's or firm's.
"""

from __future__ import annotations

from collections.abc import Callable

from espalier.data.synth import vocabulary as words
from espalier.data.synth.draw import UPPER, Draw

Maker = Callable[[Draw], str]


def coin(draw: Draw, syllables: int) -> str:
    """A pronounceable word that no dictionary holds, lower case."""
    return "".join(
        [draw.pick(words.ONSETS) + draw.pick(words.VOWELS) + draw.pick(words.CODAS) for _ in range(syllables)]
    )


def coined_name(draw: Draw) -> str:
    return (coin(draw, draw.between(1, 2)) + draw.pick(words.NAME_ENDINGS)).capitalize()


def person(draw: Draw) -> str:
    """A name as letters write it: some common, some coined, now and then with an initial."""
    first = draw.pick(words.FIRST_NAMES) if draw.chance(0.6) else coined_name(draw)
    last = draw.pick(words.LAST_NAMES) if draw.chance(0.5) else coined_name(draw)
    if draw.chance(0.08):
        return f"{first} {draw.pick(UPPER)}. {last}"
    return f"{first} {last}"


def place(draw: Draw) -> str:
    return coin(draw, draw.between(1, 2)).capitalize() + draw.pick(words.PLACE_ENDINGS)


_ID_SHAPES = (
    "AA-99999", "AAA-9999", "999999", "A999-99", "AA9999A", "999-9999", "#99999", "AAA-99999", "A-9999-A", "99-9999",
    "AA/9999", "AAAA-99", "A99999", "AA-9999-99", "9999", "SN99999", "A9-9999-A", "99999-A", "AAA9999", "AA-999999",
)  # fmt: skip


def identifier(draw: Draw) -> str:
    """An order, ticket or serial number in one of twenty shapes."""
    shape = draw.pick(_ID_SHAPES)
    return "".join([_ID_PARTS[char](draw) if char in _ID_PARTS else char for char in shape])


_ID_PARTS: dict[str, Maker] = {"A": lambda draw: draw.pick(UPPER), "9": lambda draw: str(int(draw.random() * 10))}


def date(draw: Draw) -> str:
    """An ISO date from 2015 to 2029."""
    return f"{draw.between(2015, 2029)}-{draw.between(1, 12):02d}-{draw.between(1, 28):02d}"


def clock(draw: Draw) -> str:
    return f"{draw.between(0, 23):02d}:{draw.between(0, 59):02d}"


def money(draw: Draw) -> str:
    return f"{draw.between(3, 1900)}.{draw.between(0, 99):02d}"


def quantity(draw: Draw) -> str:
    return str(draw.between(2, 400))


def brand(draw: Draw) -> str:
    return draw.pick(words.BRANDS) if draw.chance(0.5) else coined_name(draw)


def product(draw: Draw) -> str:
    """A product name of two to five words, of which some fall into several pieces."""
    parts = [brand(draw)]
    if draw.chance(0.5):
        parts.append(draw.pick(words.PRODUCT_ADJECTIVES))
    parts.append(draw.pick(words.PRODUCT_NOUNS))
    roll = draw.random()
    if roll < 0.3:
        parts.append(str(draw.between(2, 990)))
    elif roll < 0.5:
        parts.append(draw.pick(UPPER) + str(draw.between(1, 99)))
    elif roll < 0.65:
        parts.append(f"{draw.letters(2)}-{draw.between(10, 999)}")
    elif roll < 0.85:
        parts.append(draw.pick(words.MODEL_WORDS))
    return " ".join(parts)


def word(draw: Draw) -> str:
    return draw.pick(words.PLAIN_WORDS) if draw.chance(0.8) else coin(draw, 2)


def phrase(draw: Draw) -> str:
    """Two to five words without order or sense: nothing but copying gets them right."""
    return " ".join([word(draw) for _ in range(draw.between(2, 5))])


def noun_phrase(draw: Draw) -> str:
    """A thing or a matter, mostly with an adjective."""
    head = draw.pick(draw.pick((words.PARTS, words.MATTERS, words.THINGS)))
    roll = draw.random()
    if roll < 0.55:
        return f"{draw.pick(words.ADJECTIVES)} {head}"
    return f"{draw.pick(words.THINGS)} {head}" if roll < 0.7 else head


def clause(draw: Draw) -> str:
    """What somebody did: "replaced the worn pump seal on site"."""
    text = f"{draw.pick(words.VERBS_PAST)} {draw.pick(_ARTICLES)} {noun_phrase(draw)}"
    roll = draw.random()
    if roll < 0.35:
        return f"{text} {draw.pick(words.TAILS)}"
    if roll < 0.45:
        return f"{text} and {draw.pick(words.VERBS_PAST)} {draw.pick(_ARTICLES)} {noun_phrase(draw)}"
    return text


_ARTICLES = ("the", "the", "a", "one", "both", "every", "her", "their", "our", "this")


def code(draw: Draw) -> str:
    """A short code such as K3, QRT, P2, TX-4."""
    roll = draw.random()
    if roll < 0.35:
        return draw.pick(UPPER) + str(draw.between(0, 9))
    if roll < 0.7:
        return draw.letters(3)
    if roll < 0.85:
        return draw.letters(2)
    return f"{draw.letters(2)}-{draw.between(1, 9)}" if roll < 0.93 else f"{draw.letters(1)}{draw.between(10, 99)}"


def email(draw: Draw) -> str:
    return f"{coin(draw, 1)}.{coined_name(draw).lower()}@{coin(draw, 2)}.example"


def phone(draw: Draw) -> str:
    return f"+{draw.between(1, 98)} {draw.digits(3)} {draw.digits(3)} {draw.digits(4)}"


def colour(draw: Draw) -> str:
    return draw.pick(words.COLOURS)


def job(draw: Draw) -> str:
    return draw.pick(words.JOBS)


def weekday(draw: Draw) -> str:
    return draw.pick(words.WEEKDAYS)


ANY: tuple[Maker, ...] = (
    person, person, identifier, identifier, date, product, product, product, word, phrase, phrase, clause, clause,
    clause, place, money, noun_phrase, noun_phrase, code, email, clock, phone,
)  # fmt: skip


def anything(draw: Draw) -> str:
    return draw.pick(ANY)(draw)
