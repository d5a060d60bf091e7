"""Rules for numbers that have letters in them: bank accounts and codes, identity cards, crypto addresses."""

from __future__ import annotations

import re
from collections.abc import Callable

from espalier.data.pii import nationalids as ids
from espalier.data.pii.checksums import base58check, bech32
from espalier.data.pii.finding import Check, Extent, accept, any_case, before, named, rule, words

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
_COUNTRIES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO
FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE
JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO
MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW
PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM
TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_COUNTRIES.split())  # ISO 3166-1 alpha-2, and XK


def check_iban(text: bytes, start: int, end: int) -> Extent | None:
    """The country's length and ISO 7064 mod 97; what follows the number is left alone."""
    wanted = _IBAN_LENGTH.get(text[start : start + 2].decode())
    if wanted is None:
        return None
    taken = 0
    for position in range(start, end):
        taken += text[position] != 0x20
        if taken == wanted:
            code = text[start : position + 1].replace(b" ", b"").decode()
            glued = text[position + 1 : position + 2].isalnum()
            return (start, position + 1) if not glued and ids.is_iban(code) else None
    return None


def check_bic(text: bytes, start: int, end: int) -> Extent | None:
    """The code of "BIC: DEUTDEFF" (ISO 9362): its fifth and sixth letters are a country's; the word is kept."""
    code = re.search(rb"[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?$", text[start:end])
    if code is None or code[0][4:6].decode() not in COUNTRIES:
        return None
    return start + code.start(), end


def check_btc(text: bytes, start: int, end: int) -> Extent | None:
    """A Bitcoin address: Base58Check of 21 bytes with a version of the main or test network."""
    payload = base58check(text[start:end].decode())
    return (start, end) if payload and len(payload) == 21 and payload[0] in (0x00, 0x05, 0x6F, 0xC4) else None


def check_segwit(text: bytes, start: int, end: int) -> Extent | None:
    """A Bitcoin address of BIP 173 or BIP 350."""
    return (start, end) if bech32(text[start:end].decode()) else None


def check_eth(text: bytes, start: int, end: int) -> Extent | None:
    """Twenty bytes in hexadecimal, not all alike (the checksum of EIP-55 is optional, so its case is not judged)."""
    return (start, end) if len(set(text[start + 2 : end])) > 4 else None


def _code(is_valid: Callable[[str], bool], separators: bytes = b" -") -> Check:
    def check(text: bytes, start: int, end: int) -> Extent | None:
        code = text[start:end].translate(None, separators).decode()
        return (start, end) if is_valid(code) else None

    return check


def _with_context(context: re.Pattern[bytes], check: Check) -> Check:
    def checked(text: bytes, start: int, end: int) -> Extent | None:
        return check(text, start, end) if named(text, start, context) else None

    return checked


# Words that make a number of no fixed form a document's number.
PASSPORT = words("passport", "reisepass", "passeport", "pasaporte", "passaporto", "paspoort", "passnummer")
LICENCE = words(
    r"driv(?:er'?s?|ing)[ -]?licen[cs]e",
    r"driver'?s?[ -]?lic\b",
    "driver'?s?[ -]?id",
    r"licen[cs]e (?:number|no|#)",
    r"dl ?(?:no\b|number|#|:)",
    "führerschein",
    "permis de conduire",
    "rijbewijs",
    "patente",
    "permiso de conducir",
)
IDENTITY_CARD = words(
    r"(?:national|personal|identity|id)[ -](?:card|number|no\b|id\b|#)",
    "personalausweis",
    "ausweisnummer",
    "carte d'identité",
    "documento",
)
_PAN = words(r"pan\b", r"pan (?:no|number|card)", "permanent account", "income tax")


def check_document(text: bytes, start: int, end: int) -> Extent | None:
    """Six to fourteen letters and digits, half of them digits, after the words for a passport, licence or card."""
    found = text[start:end]
    digits = sum(48 <= byte <= 57 for byte in found)
    longest = max(map(len, re.findall(rb"\d+", found)))
    enough = longest >= 6 or (len(found) >= 8 and digits >= 4)
    return (start, end) if enough and names_document(text, start) else None


def names_document(text: bytes, start: int) -> bool:
    """True after the words for a passport, a driving licence or an identity card."""
    context = before(text, start)
    return any(each.search(context) for each in (PASSPORT, LICENCE, IDENTITY_CARD))


_CF = r"\b[A-Z]{6}[0-9LMNP-V]{2}[ABCDEHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]\b"
_NINO = r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?\d{2}[ -]?\d{2}[ -]?\d{2}[ -]?[A-D]\b"
_BIC_WORD = f"{any_case('swift')}|{any_case('bic')}"


def _check_cf(code: str) -> bool:
    return sum(char.isdigit() for char in code) >= 4 and ids.is_it_codice_fiscale(code)


RULES = (
    rule(
        "IBAN",
        "iban",
        "A-Z",
        r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
        check_iban,
        r"\b[A-Z]{2}\d{2} ?[A-Z0-9]{4}",
    ),
    rule(
        "BANK_CODE",
        "bic",
        "sSbB",
        rf"\b(?:{_BIC_WORD})\b(?:[ /:#=-]|\b(?:{any_case('code')}|{_BIC_WORD})\b){{1,6}}"
        r"[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?\b",
        check_bic,
        rf"\b(?:{_BIC_WORD})\b",
    ),
    rule(
        "CRYPTO",
        "btc",
        "13mn2",
        r"\b[13mn2][1-9A-HJ-NP-Za-km-z]{25,34}\b",
        check_btc,
        r"\b[13mn2][1-9A-HJ-NP-Za-km-z]{25}",
    ),
    rule(
        "CRYPTO", "segwit", "btBT", r"\b(?:bc1|tb1|BC1|TB1)[a-zA-Z0-9]{11,71}\b", check_segwit, r"\b(?:bc1|tb1|BC1|TB1)"
    ),
    rule("CRYPTO", "eth", "0", r"\b0x[0-9a-fA-F]{40}\b", check_eth, r"\b0x[0-9a-fA-F]{8}"),
    rule("NATIONAL_ID", "gb.nino", "A-Z", _NINO, _code(ids.is_gb_nino)),
    rule("NATIONAL_ID", "es.dni", "0-9", r"\b\d{8}[ -]?[A-HJ-NP-TV-Z]\b", _code(ids.is_es_dni)),
    rule("NATIONAL_ID", "es.nie", "XYZ", r"\b[XYZ][ -]?\d{7}[ -]?[A-HJ-NP-TV-Z]\b", _code(ids.is_es_dni)),
    rule("NATIONAL_ID", "it.codice_fiscale", "A-Z", _CF, _code(_check_cf)),
    rule("NATIONAL_ID", "mx.curp", "A-Z", r"\b[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d\b", _code(ids.is_mx_curp)),
    rule("NATIONAL_ID", "sg.nric", "STFGM", r"\b[STFGM]\d{7}[A-Z]\b", _code(ids.is_sg_nric)),
    rule(
        "NATIONAL_ID",
        "fi.hetu",
        "0-3",
        r"\b[0-3]\d{5}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]\b",
        _code(ids.is_fi_hetu, b""),
    ),
    rule("NATIONAL_ID", "cn.resident", "1-9", r"\b[1-9]\d{16}[0-9Xx]\b", _code(ids.is_cn_resident)),
    rule("NATIONAL_ID", "fr.nir", "1-8", r"\b[1-8] ?\d{2} ?\d{2} ?2[AB] ?\d{3} ?\d{3} ?\d{2}\b", _code(ids.is_fr_nir)),
    rule(
        "NATIONAL_ID",
        "in.pan",
        "A-Z",
        r"\b[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]\b",
        _with_context(_PAN, accept),
    ),
    rule(
        "DOCUMENT",
        "lettered",
        "A-Z0-9",
        r"\b(?:[A-Z]{1,6}\d|\d{1,5}[A-Z])[A-Z0-9]{4,14}\b",
        check_document,
        r"\b(?:[A-Z]{1,6}\d|\d{1,5}[A-Z])[A-Z0-9]{4}",
    ),
)
