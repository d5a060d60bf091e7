"""Numbers that are personal by what stands before them: dates of birth, document numbers; and places to a metre."""

from __future__ import annotations

import re

from espalier.data.pii.codes import names_document
from espalier.data.pii.finding import Finding, before, words

_BORN = words(
    "born",
    r"date of birth",
    r"birth ?da(?:te|y)",
    r"d\.?o\.?b\b",
    "geboren",
    "geb\\.",
    "geburtsdatum",
    r"n[ée]e? le",
    "date de naissance",
    "fecha de nacimiento",
    "nato il",
    "nata il",
    "data di nascita",
    "geboortedatum",
    "birthdate",
)
_BIRTH = re.compile(
    rb"(?:\d{1,2}[./ -]\d{1,2}[./ -](?:18|19|20)\d\d|(?:18|19|20)\d\d[./-]\d{1,2}[./-]\d{1,2}"
    rb"|\d{1,2}[./-]\d{1,2}[./-]\d\d)(?!\d)"
)


def judge_birth_date(text: bytes, start: int, end: int) -> Finding | None:
    """A date in figures after words for a birth."""
    match = _BIRTH.match(text, start)
    if match is None or not _BORN.search(before(text, start, 32)):
        return None
    numbers = [int(part) for part in re.findall(rb"\d+", match.group())]
    plausible = sorted(number for number in numbers if number < 100)
    if plausible and plausible[0] > 12:
        return None
    return Finding(start, match.end(), "BIRTH_DATE", "born")


_SOLID = re.compile(rb"\d{6,12}(?![0-9A-Za-z_])")


def judge_document(text: bytes, start: int, end: int) -> Finding | None:
    """Six to twelve digits after the words for a passport, a driving licence or an identity card."""
    match = _SOLID.match(text, start)
    return Finding(start, match.end(), "DOCUMENT", "digits") if match and names_document(text, start) else None


_PLACE = re.compile(rb"-?\d{1,2}\.\d{5,10}(?:, ?| )-?\d{1,3}\.\d{5,10}(?![\d])")


def judge_coordinates(text: bytes, start: int, end: int) -> Finding | None:
    """Latitude and longitude with five decimals or more: a place to a metre."""
    match = _PLACE.match(text, start)
    if match is None:
        return None
    latitude, longitude = (float(part) for part in re.findall(rb"-?\d+\.\d+", match.group()))
    placed = abs(latitude) <= 90 and abs(longitude) <= 180
    return Finding(start, match.end(), "COORDINATES", "decimal") if placed else None
