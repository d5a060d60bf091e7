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
from espalier.data.pii.finding import Finding, Judge, Rule, before, words
from espalier.data.pii.occasions import judge_birth_date, judge_coordinates, judge_document
from espalier.data.pii.phones import judge_phone

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


_NUMBER_KINDS = ("CARD", "SSN", "NATIONAL_ID", "BANK_CODE")


def number_rules(kinds: frozenset[str]) -> tuple[Rule, ...]:
    """One rule over chains of digits for those of the wanted kinds that are numbers, or none."""
    shapes = kinds & set(_NUMBER_KINDS)
    judges: list[Judge] = []
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
