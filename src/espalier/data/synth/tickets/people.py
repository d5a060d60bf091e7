"""Made-up people and the personal data they leave in tickets: names, addresses, phones, cards, accounts, IPs.

Cards pass Luhn, IBANs pass ISO 7064 mod 97-10: what a good detector checks holds for them. Domains end in `.example`
(RFC 2606) and IPv4 addresses lie in the three documentation networks (RFC 5737); the digits of cards and accounts are
thrown at random.
"""

from __future__ import annotations

from dataclasses import dataclass

from espalier.data.synth import values
from espalier.data.synth import vocabulary as words
from espalier.data.synth.draw import Draw

_DOCUMENTATION_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
_CARD_PREFIXES = ("4", "51", "52", "53", "54", "55")
_IBAN_COUNTRIES = {"DE": 18, "AT": 16, "BE": 12, "CH": 17, "DK": 14, "FI": 14}  # digits after the check digits


@dataclass(frozen=True, slots=True)
class Person:
    """A customer or a member of staff. `firm` is empty for staff."""

    name: str
    email: str
    phone: str
    firm: str = ""


def make_customers(draw: Draw, count: int) -> list[Person]:
    """`count` customers with different names."""
    people: dict[str, Person] = {}
    while len(people) < count:
        firm = f"{values.coined_name(draw)} {draw.pick(_FIRM_KINDS)}"
        person = _make_person(draw, f"{firm.split()[0].lower()}.example", firm)
        people[person.name] = person
    return list(people.values())


def make_staff(draw: Draw, count: int) -> list[Person]:
    """`count` people of the company, each name once."""
    people: dict[str, Person] = {}
    while len(people) < count:
        person = _make_person(draw, "larkspur.example", "")
        people[person.name] = person
    return list(people.values())


def _make_person(draw: Draw, domain: str, firm: str) -> Person:
    first = draw.pick(words.FIRST_NAMES)
    last = draw.pick(words.LAST_NAMES) if draw.chance(0.6) else values.coined_name(draw)
    return Person(f"{first} {last}", f"{first}.{last}@{domain}".lower(), make_phone(draw), firm)


def make_phone(draw: Draw) -> str:
    """An international number in one of three spellings."""
    return draw.pick(
        (
            f"+49 {draw.digits(3)} {draw.digits(7)}",
            f"+44 20 {draw.digits(4)} {draw.digits(4)}",
            f"+1 ({draw.between(201, 989)}) 555-{draw.between(100, 199):04d}",
        )
    )


def make_card(draw: Draw) -> str:
    """A sixteen-digit card number that passes the Luhn check, in groups of four."""
    prefix = draw.pick(_CARD_PREFIXES)
    body = prefix + "".join([str(draw.between(0, 9)) for _ in range(15 - len(prefix))])
    number = body + luhn_digit(body)
    return draw.pick((" ", "-")).join([number[i : i + 4] for i in range(0, 16, 4)])


def luhn_digit(body: str) -> str:
    """The check digit to append to `body` (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, char in enumerate(reversed(body)):
        digit = int(char) * (2 if place % 2 == 0 else 1)
        total += digit - 9 if digit > 9 else digit
    return str(-total % 10)


def make_iban(draw: Draw) -> str:
    """An IBAN with valid check digits, printed in groups of four."""
    country = draw.pick(tuple(_IBAN_COUNTRIES))
    account = "".join([str(draw.between(0, 9)) for _ in range(_IBAN_COUNTRIES[country])])
    iban = country + iban_check(country, account) + account
    return " ".join([iban[i : i + 4] for i in range(0, len(iban), 4)])


def iban_check(country: str, account: str) -> str:
    """The two check digits (ISO 13616-1, ISO/IEC 7064 mod 97-10); letters count as 10 to 35."""
    digits = "".join([str(int(char, 36)) for char in f"{account}{country}00"])
    return f"{98 - int(digits) % 97:02d}"


def make_ip(draw: Draw) -> str:
    return f"{draw.pick(_DOCUMENTATION_NETWORKS)}.{draw.between(1, 254)}"


_FIRM_KINDS = (
    "Labs",
    "Water Works",
    "Foods",
    "Farms",
    "Chemicals",
    "Energy",
    "Research",
    "Clinic",
    "Brewery",
    "Paper Mill",
)
