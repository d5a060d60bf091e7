"""One ticket: what happened, who wrote, and the paragraphs it is told in. Knows no file format."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from espalier.data.synth import vocabulary as words
from espalier.data.synth.draw import Draw
from espalier.data.synth.tickets import wording
from espalier.data.synth.tickets.people import Person, make_card, make_iban, make_ip
from espalier.data.synth.tickets.spec import CATALOGUE, CAUSES, GRADES, render_record

_FIRST_DAY = date(2023, 1, 2)
_DAYS = 900


@dataclass(frozen=True, slots=True)
class Plant:
    """One piece of personal data that stands in a document."""

    kind: str  # name | email | phone | card | iban | ip
    value: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """The facts, the record they make, and the telling.

    `message` is what the customer wrote, `notes` what the staff added: each a list of sentences. `plants` are those
    within the two; a layout adds those it prints around them.
    """

    ref: str
    product: str
    opened: str
    closed: str
    cause: str
    severity: str
    resolution: str
    customer: Person
    agent: Person
    opening: str
    greeting: str
    message: tuple[str, ...]
    notes: tuple[str, ...]
    plants: tuple[Plant, ...]

    @property
    def record(self) -> str:
        return render_record(
            ref=self.ref,
            product=self.product,
            opened=self.opened,
            closed=self.closed,
            cause=self.cause,
            severity=self.severity,
            resolution=self.resolution,
        )


def tell_ticket(draw: Draw, ref: str, customers: list[Person], staff: list[Person]) -> Ticket:
    """A ticket of some customer, solved by some agent."""
    opened = _FIRST_DAY + timedelta(days=draw.between(0, _DAYS))
    closed = opened + timedelta(days=draw.between(0, 45))
    cause = draw.pick(tuple(CAUSES))
    severity = draw.pick(tuple(GRADES))
    product = draw.pick(CATALOGUE)
    resolution = draw.pick(wording.REMEDIES[cause])
    customer, agent = draw.pick(customers), draw.pick(staff)
    message, planted = _tell_message(draw, product, cause, severity, opened, customers)
    notes = _tell_notes(draw, cause, resolution, closed, agent)
    if draw.chance(0.6):
        message.append(f"{customer.name}, {customer.firm}")
        planted.append(Plant("name", customer.name))
    if agent.name in " ".join(notes):
        planted.append(Plant("name", agent.name))
    return Ticket(
        ref=ref,
        product=product,
        opened=opened.isoformat(),
        closed=closed.isoformat(),
        cause=cause,
        severity=severity,
        resolution=resolution,
        customer=customer,
        agent=agent,
        opening=draw.pick(wording.OPENINGS).format(ref=ref, opened=opened.isoformat()),
        greeting=draw.pick(wording.GREETINGS),
        message=tuple(message),
        notes=tuple(notes),
        plants=tuple(planted),
    )


def _tell_message(
    draw: Draw, product: str, cause: str, severity: str, opened: date, customers: list[Person]
) -> tuple[list[str], list[Plant]]:
    symptom = draw.pick(wording.SYMPTOM_MENTIONS).format(
        symptom=draw.pick(wording.SYMPTOMS[cause]), weekday=draw.pick(words.WEEKDAYS)
    )
    sentences = [draw.pick(wording.PRODUCT_MENTIONS).format(product=product), symptom]
    talk = [text.format(n=draw.between(2, 40), hour=draw.between(15, 20)) for text in wording.CUSTOMER_TALK]
    sentences += draw.sample(talk, draw.between(1, 4))
    if draw.chance(0.7):
        sentences.append(_side_fact(draw, opened))
    tail = [draw.pick(wording.URGENCY[severity])]
    planted: list[Plant] = []
    if draw.chance(0.45):
        sentence, plant = _personal_sentence(draw, cause, customers)
        tail.append(sentence)
        planted.append(plant)
    # What it is about comes first, as people write; the rest in any order.
    return sentences[:1] + draw.shuffled(sentences[1:] + tail), planted


def _tell_notes(draw: Draw, cause: str, resolution: str, closed: date, agent: Person) -> list[str]:
    notes = draw.sample(wording.STAFF_TALK, draw.between(1, 3))
    if draw.chance(0.6):
        notes.append(f"At first, {agent.name if draw.chance(0.5) else 'first level'} {draw.pick(wording.FIRST_TRIES)}.")
    if draw.chance(0.8):
        notes.append(draw.pick(wording.FINDINGS[cause]))
    closing = draw.pick(wording.CLOSINGS).format(remedy=resolution, closed=closed.isoformat())
    return [*draw.shuffled(notes), closing]


def _side_fact(draw: Draw, opened: date) -> str:
    """A date or a number that the record does not ask for."""
    return draw.pick(wording.SIDE_FACTS).format(
        bought=opened - timedelta(days=draw.between(60, 900)),
        service=opened - timedelta(days=draw.between(20, 300)),
        order=f"PO-{draw.digits(5)}",
        serial=f"{draw.digits(4)}-{draw.letters(1)}",
    )


def _personal_sentence(draw: Draw, cause: str, customers: list[Person]) -> tuple[str, Plant]:
    """A sentence with a card, an account or an address in it, as fits the cause."""
    if cause == "B31":
        if draw.chance(0.5):
            card = make_card(draw)
            return f"The card was {card}.", Plant("card", card)
        iban = make_iban(draw)
        return f"Please pay it back to {iban}.", Plant("iban", iban)
    if cause in ("N12", "A05", "F77"):
        ip = make_ip(draw)
        return f"Our address is {ip}.", Plant("ip", ip)
    # One in five of these is in no directory: what a list of names cannot find must be there to be missed.
    stranger = f"{draw.pick(words.FIRST_NAMES)} {draw.pick(words.LAST_NAMES)}"
    other = stranger if draw.chance(0.2) else draw.pick(customers).name
    return f"Please ask for {other} at the gate.", Plant("name", other)
