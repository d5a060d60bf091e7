"""Decides whether what a pattern found really is what it looks like, and how far it reaches.

A validator is `(text, start, end) -> (start, end) | None`: the stretch to redact, or None to leave it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Extent = tuple[int, int]
Validator = Callable[[str, int, int], Extent | None]

# Lengths by country of the SWIFT IBAN registry, release 99 (public).
_IBAN_CHARS = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTH = {country: chars for chars, countries in _IBAN_CHARS.items() for country in countries.split()}
_FILE_SUFFIXES = frozenset(
    (
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "html",
        "htm",
        "py",
        "rs",
        "txt",
        "service",
        "js",
        "css",
        "so",
        "conf",
        "timer",
    )
)


def check_email(text: str, start: int, end: int) -> Extent | None:
    """Refuses what ends like a file name (`icon@2x.png`) and a local part with stray dots (RFC 5321, 4.1.2)."""
    local, _, domain = text[start:end].rpartition("@")
    if domain.rsplit(".", 1)[-1].lower() in _FILE_SUFFIXES or local.endswith(".") or ".." in local:
        return None
    return start, end


def check_iban(text: str, start: int, end: int) -> Extent | None:
    """The country's length and ISO 7064 mod 97; what follows the number is left alone."""
    wanted = _IBAN_LENGTH.get(text[start : start + 2])
    if wanted is None:
        return None
    taken = 0
    for position in range(start, end):
        taken += text[position] != " "
        if taken == wanted:
            digits = text[start : position + 1].replace(" ", "")
            rest = text[position + 1 : position + 2]
            return (start, position + 1) if _mod_97(digits) == 1 and not rest.isalnum() else None
    return None


def _mod_97(iban: str) -> int:
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97


def check_card(text: str, start: int, end: int) -> Extent | None:
    """Luhn (ISO/IEC 7812-1) on 13 to 19 digits that begin like a payment card, less any group that follows it."""
    while True:
        digits = [int(char) for char in text[start:end] if char.isdigit()]
        if len(digits) < 13:
            return None
        if digits[0] in (2, 3, 4, 5, 6) and len(set(digits)) > 1 and luhn(digits):
            return start, end
        shorter = max(text.rfind(" ", start, end), text.rfind("-", start, end))
        if shorter < 0:
            return None
        end = shorter


def luhn(digits: list[int]) -> bool:
    """True when the last digit is the check digit of the others."""
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(odd) + sum(sum(divmod(2 * digit, 10)) for digit in even)) % 10 == 0


def check_ssn(text: str, start: int, end: int) -> Extent | None:
    """A US social security number that could have been issued (SSA, POMS RM 10201.035)."""
    area, group, serial = text[start:end].split("-")
    valid = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return (start, end) if valid else None


def check_ipv4(text: str, start: int, end: int) -> Extent | None:
    """Four numbers up to 255 without leading zeros; not loopback or unspecified, not part of a longer dotted number."""
    parts = text[start:end].split(".")
    if any(int(part) > 255 or (len(part) > 1 and part[0] == "0") for part in parts) or parts[0] in ("0", "127"):
        return None
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if re.search(r"[\d\w]\.$|v$", before) or re.match(r"\.\d", after):
        return None
    return start, end


def check_phone(text: str, start: int, end: int) -> Extent | None:
    """8 to 15 digits (ITU-T E.164), not glued to letters or more digits, and not a date."""
    found = text[start:end]
    digits = sum(char.isdigit() for char in re.split("[xe]", found)[0])  # an extension does not count
    if not 8 <= digits <= 15 or _DATE.search(found):
        return None
    glued = (start and (text[start - 1].isalnum() or text[start - 1] in "-_#")) or text[end : end + 1].isalnum()
    return None if glued else (start, end)


_DATE = re.compile(r"\b(19|20)\d\d[-/.](0?[1-9]|1[0-2])[-/.](0?[1-9]|[12]\d|3[01])\b|\b\d\d?[./]\d\d?[./](19|20)\d\d\b")


def check_spoken_phone(text: str, start: int, end: int) -> Extent | None:
    """A number announced as one ("call me at 555-0142"): 6 to 15 digits; the announcing words are kept."""
    first = re.search(r"[+(\d]", text[start:end])
    if first is None:
        return None
    start += first.start()
    found = text[start:end]
    return (start, end) if 6 <= sum(char.isdigit() for char in found) <= 15 and not _DATE.search(found) else None


def check_password(text: str, start: int, end: int) -> Extent | None:
    """The value of `password: value`; the name is kept."""
    value = re.search(r"[:=]\s*(\S+)$", text[start:end])
    return (start + value.start(1), end) if value and not value[1].startswith("[") else None


def accept(text: str, start: int, end: int) -> Extent | None:
    """For patterns that no chance text matches."""
    return start, end
