"""Rules for numbers: a chain of digit groups is read once, and its shape says which kinds it can be.

A number with enough check digits, or of an unmistakable form, speaks for itself. The others need a word before them
that says what they are (`context` in the table; docs/personal-data.md lists them).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from espalier.data.pii import nationalids as ids
from espalier.data.pii.checksums import luhn
from espalier.data.pii.codes import names_document
from espalier.data.pii.finding import Finding, Rule, after, before, words

CHAIN = r"(?:\+|\(|\b)\(?\d(?:[ ./()-]{0,3}\d){5,30}"
_CHAIN_OPENING = r"(?:\+|\(|\b)\(?\d(?:[ ./()-]{0,3}\d){5}"


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of number: `groups` of digits with one separator of `separators` between any two."""

    kind: str
    name: str
    groups: tuple[int, ...]
    separators: tuple[bytes, ...]
    is_valid: Callable[[str], bool]
    context: re.Pattern[bytes] | None = None


# First digits and lengths of payment cards (the networks' published ranges; ISO/IEC 7812).
_CARDS = (
    (4, 4, 1, (13, 16, 19)),
    (51, 55, 2, (16,)),
    (2221, 2720, 4, (16,)),
    (2200, 2204, 4, (16, 17, 18, 19)),
    (34, 34, 2, (15,)),
    (37, 37, 2, (15,)),
    (300, 305, 3, (14, 15, 16, 17, 18, 19)),
    (36, 36, 2, (14, 15, 16, 17, 18, 19)),
    (38, 39, 2, (14, 15, 16, 17, 18, 19)),
    (3528, 3589, 4, (16, 17, 18, 19)),
    (50, 50, 2, (13, 14, 15, 16, 17, 18, 19)),
    (56, 58, 2, (13, 14, 15, 16, 17, 18, 19)),
    (6, 6, 1, (13, 14, 15, 16, 17, 18, 19)),
)


def is_card(code: str) -> bool:
    """Luhn on digits that begin and are as many as a payment card's."""
    issued = any(low <= int(code[:size]) <= high and len(code) in lengths for low, high, size, lengths in _CARDS)
    return issued and len(set(code)) > 1 and luhn([int(char) for char in code])


_SSN = words("ssn", r"social(?: security)?", "itin", r"tax(?:payer)? ?id", r"tin\b")
_NHS = words("nhs", "national health", "patient", "health (?:no|number|service)")
_STEUER = words("steuer", r"(?:tax|tin|identifikationsn|idnr|id-nr)")
_BSN = words("bsn", "burgerservice", "sofi", "citizen service")
_BE = words("rijksregister", "registre national", "national (?:register|number|no)", "insz", "niss", "nrn")
_PESEL = words("pesel", "national id")
_CPR = words("cpr", "personnummer", "personal (?:id|identification|number)")
_SE = words("personnummer", "pnr", "personal (?:id|identity|identification|number)", "org(?:anisations)?n")
_CPF = words("cpf", "cadastro", "cnpj")
_AADHAAR = words("aadhaar", "aadhar", "uidai", "uid\\b")
_SIN = words("sin\\b", "social insurance", "assurance sociale", "nas\\b")
_TFN = words("tfn", "tax file")
_ABN = words("abn\\b", "business number")
_RRN = words("rrn\\b", "resident registration", "jumin")
_ROUTING = words("routing", "aba\\b", "rtn\\b", "transit")

_DASH, _SPACE, _DOT = (b"-",), (b" ",), (b".",)
_LOOSE = (b" ", b"-")
SHAPES = (
    Shape("CARD", "card", (4, 4, 4, 4, 3), _LOOSE, is_card),
    Shape("CARD", "card", (4, 4, 4, 4), (b" ", b"-", b".", b"  "), is_card),
    Shape("CARD", "card", (4, 6, 5), _LOOSE, is_card),
    Shape("CARD", "card", (4, 6, 4), _LOOSE, is_card),
    Shape("SSN", "us.ssn", (3, 2, 4), _DASH, ids.is_us_ssn),
    Shape("SSN", "us.itin", (3, 2, 4), _DASH, ids.is_us_itin),
    Shape("SSN", "us.ssn", (3, 2, 4), (b" ", b"."), ids.is_us_ssn, _SSN),
    Shape("SSN", "us.itin", (3, 2, 4), (b" ", b"."), ids.is_us_itin, _SSN),
    Shape("SSN", "us.ssn", (9,), (), ids.is_us_ssn, _SSN),
    Shape("SSN", "us.itin", (9,), (), ids.is_us_itin, _SSN),
    Shape("NATIONAL_ID", "fr.nir", (1, 2, 2, 2, 3, 3, 2), _SPACE, ids.is_fr_nir),
    Shape("NATIONAL_ID", "fr.nir", (15,), (), ids.is_fr_nir),
    Shape("NATIONAL_ID", "br.cpf", (3, 3, 3, 2), (b".", b"-"), ids.is_br_cpf),
    Shape("NATIONAL_ID", "br.cpf", (11,), (), ids.is_br_cpf, _CPF),
    Shape("NATIONAL_ID", "br.cnpj", (2, 3, 3, 4, 2), (b".", b"/", b"-"), ids.is_br_cnpj),
    Shape("NATIONAL_ID", "br.cnpj", (14,), (), ids.is_br_cnpj, _CPF),
    Shape("NATIONAL_ID", "be.national", (2, 2, 2, 3, 2), (b".", b"-", b" "), ids.is_be_national),
    Shape("NATIONAL_ID", "be.national", (6, 3, 2), (b" ", b"-"), ids.is_be_national, _BE),
    Shape("NATIONAL_ID", "be.national", (11,), (), ids.is_be_national, _BE),
    Shape("NATIONAL_ID", "no.fodselsnummer", (11,), (), ids.is_no_fodselsnummer),
    Shape("NATIONAL_ID", "no.fodselsnummer", (6, 5), _LOOSE, ids.is_no_fodselsnummer),
    Shape("NATIONAL_ID", "pl.pesel", (11,), (), ids.is_pl_pesel, _PESEL),
    Shape("NATIONAL_ID", "de.steuer_id", (11,), (), ids.is_de_steuer_id, _STEUER),
    Shape("NATIONAL_ID", "de.steuer_id", (2, 3, 3, 3), _SPACE, ids.is_de_steuer_id, _STEUER),
    Shape("NATIONAL_ID", "se.personnummer", (6, 4), (b"-", b"+"), ids.is_se_personnummer),
    Shape("NATIONAL_ID", "se.personnummer", (8, 4), (b"-", b"+"), lambda code: ids.is_se_personnummer(code[2:])),
    Shape("NATIONAL_ID", "se.personnummer", (10,), (), ids.is_se_personnummer, _SE),
    Shape("NATIONAL_ID", "se.personnummer", (12,), (), lambda code: ids.is_se_personnummer(code[2:]), _SE),
    Shape("NATIONAL_ID", "dk.cpr", (6, 4), _DASH, ids.is_dk_cpr_summed),
    Shape("NATIONAL_ID", "dk.cpr", (6, 4), _LOOSE, ids.is_dk_cpr, _CPR),
    Shape("NATIONAL_ID", "dk.cpr", (10,), (), ids.is_dk_cpr, _CPR),
    Shape("NATIONAL_ID", "kr.rrn", (6, 7), _DASH, ids.is_kr_rrn),
    Shape("NATIONAL_ID", "kr.rrn", (13,), (), ids.is_kr_rrn, _RRN),
    Shape("NATIONAL_ID", "za.id", (13,), (), ids.is_za_id),
    Shape("NATIONAL_ID", "za.id", (6, 4, 3), _SPACE, ids.is_za_id),
    Shape("NATIONAL_ID", "in.aadhaar", (4, 4, 4), _LOOSE, ids.is_in_aadhaar, _AADHAAR),
    Shape("NATIONAL_ID", "in.aadhaar", (12,), (), ids.is_in_aadhaar, _AADHAAR),
    Shape("NATIONAL_ID", "gb.nhs", (3, 3, 4), _LOOSE, ids.is_gb_nhs, _NHS),
    Shape("NATIONAL_ID", "gb.nhs", (10,), (), ids.is_gb_nhs, _NHS),
    Shape("NATIONAL_ID", "nl.bsn", (9,), (), ids.is_nl_bsn, _BSN),
    Shape("NATIONAL_ID", "nl.bsn", (4, 2, 3), (b".", b" "), ids.is_nl_bsn, _BSN),
    Shape("NATIONAL_ID", "ca.sin", (3, 3, 3), _LOOSE, ids.is_ca_sin, _SIN),
    Shape("NATIONAL_ID", "ca.sin", (9,), (), ids.is_ca_sin, _SIN),
    Shape("NATIONAL_ID", "au.tfn", (3, 3, 3), _LOOSE, ids.is_au_tfn, _TFN),
    Shape("NATIONAL_ID", "au.tfn", (9,), (), ids.is_au_tfn, _TFN),
    Shape("NATIONAL_ID", "au.abn", (2, 3, 3, 3), _SPACE, ids.is_au_abn),
    Shape("NATIONAL_ID", "au.abn", (11,), (), ids.is_au_abn, _ABN),
    Shape("BANK_CODE", "us.routing", (9,), (), ids.is_us_routing, _ROUTING),
    *(Shape("CARD", "card", (length,), (), is_card) for length in range(13, 20)),
)
_BY_GROUPS: dict[tuple[int, ...], tuple[Shape, ...]] = {}
for _shape in SHAPES:
    _BY_GROUPS[_shape.groups] = (*_BY_GROUPS.get(_shape.groups, ()), _shape)
_LENGTHS = sorted({len(groups) for groups in _BY_GROUPS}, reverse=True)
_GROUP = re.compile(rb"\d+")


def judge_shapes(text: bytes, start: int, end: int, kinds: frozenset[str]) -> Finding | None:
    """The number with a shape of the table that begins at `start`; the longest shape is tried first."""
    spans = [match.span() for match in _GROUP.finditer(text, start, end)]
    if spans[0][0] != start:
        return None
    sizes = [high - low for low, high in spans[:8]]
    for count in _LENGTHS:
        shapes = _BY_GROUPS.get(tuple(sizes[:count])) if count <= len(sizes) else None
        if not shapes:
            continue
        low, high = spans[0][0], spans[count - 1][1]
        separators = {text[spans[at][1] : spans[at + 1][0]] for at in range(count - 1)}
        code = b"".join(text[a:b] for a, b in spans[:count]).decode()
        for shape in shapes:
            if shape.kind in kinds and _fits(shape, separators, text, low, high) and shape.is_valid(code):
                return Finding(low, high, shape.kind, shape.name)
    return None


def _fits(shape: Shape, separators: set[bytes], text: bytes, low: int, high: int) -> bool:
    if not separators <= set(shape.separators) or (len(separators) > 1 and shape.separators is _LOOSE):
        return False
    if _LETTERED.match(text, high) or (shape.kind != "CARD" and _goes_on(separators, text, low, high)):
        return False
    return shape.context is None or shape.context.search(before(text, low)) is not None


def _goes_on(separators: set[bytes], text: bytes, low: int, high: int) -> bool:
    """True when the number is a part of a longer one: the same separator and more digits follow or come before."""
    follows, comes = text[high : high + 2], text[max(0, low - 2) : low]
    joints = {bytes(each[:1]) for each in separators} | {b"-", b"/", b"."}
    more = follows[:1] in joints and follows[1:2].isdigit()
    return more or (comes[1:] in joints and comes[:1].isdigit()) or comes[1:] in (b"+", b"#", b"_")


_LETTERED = re.compile(rb"[A-Za-z0-9_]")

# Telephones ------------------------------------------------------------------------------------------------------

_EXTENSION = rb"(?: ?(?:x|ext\.? ?)\d{1,5}\b)?"
_ENDS = rb"(?![0-9A-Za-z_])"
_PHONES = tuple(
    re.compile(pattern)
    for pattern in (
        # +49 209 7654906, 001-420-335-7509x38548
        rb"(?:\+|(?<![0-9A-Za-z_])00)[1-9]\d{0,2}(?:[ ./-]{0,2}\(?\d{1,5}\)?){1,6}" + _EXTENSION,
        # (212) 555-0187, (07) 5331 0577, 8 (329) 150-61-59, (06)20/033-2245, (01965) 42754
        rb"(?:[18][ .-])?\(\d{2,5}\)[ -]?\d{3,4}[ .-]?\d{2}[ .-]?\d{1,3}" + _EXTENSION + _ENDS,
        rb"\(0\d{1,4}\) ?(?:\d{1,4}/\d{2,4}[ -]?\d{2,4}|\d{4,8})" + _EXTENSION + _ENDS,
        # 212-555-0187, 1 800 555 0187, 986.291.2294x751
        rb"(?:1[ .-])?\d{3}(?:\.\d{3}\.|[ -]\d{3}[ -])\d{4}" + _EXTENSION + _ENDS,
        # 0171 2345678, 041-412-293, 027 896 92 86
        rb"0[1-9]\d{0,4}[ /-]\d{3,8}(?:[ -]\d{2,6}){0,3}" + _EXTENSION + _ENDS,
        # 01 46 86 56 90, 08-47 52 77
        rb"0[1-9](?:[ .-]\d{2}){4}" + _ENDS,
        rb"0[1-9]\d{0,2}-\d{2,3}(?: \d{2,3}){1,3}" + _ENDS,
        # 75 2200-3322, 22-0033-2245
        rb"\d{2}[ -]\d{4,5}-\d{4}" + _ENDS,
    )
)
_CHINESE_MOBILE, _CJK = re.compile(rb"1[3-9]\d{9}" + _ENDS), re.compile(rb"[\xe3-\xe9][\x80-\xbf]{2}")
_ANY_PHONE = re.compile(b"|".join(pattern.pattern for pattern in _PHONES))
_SPOKEN_BEFORE = re.compile(
    rb"(?i)(?<![a-z])(?:(?:phone|telephone|telefon|tel|mobile|mobil|cell|fax|whatsapp|call|ring|reach|dial|t\xc3\xa9l)"
    rb"(?![a-z])|(?:desk|office|home|work|contact|handy):|(?:my|his|her|our|their|your) number is)[^\d\n]{1,20}$"
)
_SPOKEN_AFTER = re.compile(rb"(?i)^ ?\(?(?:office|mobile|cell|fax|phone|home|work|desk|tel)(?![a-z])")
_SPOKEN = re.compile(rb"[+(]{0,2}\d[\d ()./-]{4,18}\d" + _EXTENSION + rb"(?![0-9A-Za-z_])")
_LONGER = re.compile(rb"\d{3}[ ./-]$")  # the group before shows that this is the rest of a longer number
_ZIP, _STATE = re.compile(rb"\d{5}-\d{4}(?!\d)"), re.compile(rb"(?:\b[A-Z]{2}|[a-z])[.,]?\s[\s#*/]*$")
_DATE = re.compile(
    rb"\b(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])\b|\b\d\d?[./]\d\d?[./](?:19|20)\d\d\b"
)


def judge_phone(text: bytes, start: int, end: int) -> Finding | None:
    """8 to 15 digits (ITU-T E.164) as telephones are written; or 6 to 15 after or before a word that announces one."""
    if text[start] not in b"+(" and _LONGER.search(text[max(0, start - 4) : start]):
        return None
    if _ZIP.match(text, start) and _STATE.search(before(text, start)):
        return None
    for pattern in _PHONES if _ANY_PHONE.match(text, start) else ():
        match = pattern.match(text, start)
        if match and _is_phone(text, start, match.end()):
            return Finding(start, match.end(), "PHONE", "phone")
    mobile = _CHINESE_MOBILE.match(text, start)
    if mobile and _CJK.search(before(text, start) + after(text, mobile.end())) and not _glued_before(text, start):
        return Finding(start, mobile.end(), "PHONE", "phone.mobile")
    match = _SPOKEN.match(text, start)
    if match is None:
        return None
    found, announced = match.group(), _SPOKEN_BEFORE.search(before(text, start, 32))
    if not (announced or _SPOKEN_AFTER.match(after(text, match.end()))):
        return None
    digits = sum(48 <= byte <= 57 for byte in found)
    if not (6 if announced else 8) <= digits <= 20 or _DATE.search(found) or _glued_before(text, start):
        return None
    return Finding(start, match.end(), "PHONE", "phone.announced")


def _is_phone(text: bytes, start: int, end: int) -> bool:
    found = text[start:end]
    digits = sum(48 <= byte <= 57 for byte in re.split(rb"[xe]", found)[0])  # an extension does not count
    glued = _glued_before(text, start) or text[end : end + 1].isalnum()
    return 8 <= digits <= 15 and not glued and not _DATE.search(found)


def _glued_before(text: bytes, start: int) -> bool:
    comes = text[max(0, start - 2) : start]
    return comes[-1:].isalnum() or comes[-1:] in (b"-", b"_", b"#") or (comes[-1:] == b"." and comes[:1].isdigit())


# Dates of birth and places -----------------------------------------------------------------------------------------

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
    numbers = [int(part) for part in _GROUP.findall(match.group())]
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


_NUMBER_KINDS = ("CARD", "SSN", "NATIONAL_ID", "BANK_CODE")


def number_rules(kinds: frozenset[str]) -> tuple[Rule, ...]:
    """One rule over chains of digits for those of the wanted kinds that are numbers, or none."""
    shapes = kinds & set(_NUMBER_KINDS)
    judges: list[Callable[[bytes, int, int], Finding | None]] = []
    if shapes:
        judges.append(lambda text, start, end: judge_shapes(text, start, end, shapes))
    if "DOCUMENT" in kinds:
        judges.append(judge_document)
    if "BIRTH_DATE" in kinds:
        judges.append(judge_birth_date)
    if "COORDINATES" in kinds:
        judges.append(judge_coordinates)
    if "PHONE" in kinds:
        judges.append(judge_phone)
    if not judges:
        return ()

    def judge(text: bytes, start: int, end: int) -> Finding | None:
        return next((found for each in judges if (found := each(text, start, end))), None)

    every = (*_NUMBER_KINDS, "DOCUMENT", "BIRTH_DATE", "COORDINATES", "PHONE")
    return (Rule(every, CHAIN, "0-9+(", judge, _CHAIN_OPENING),)
