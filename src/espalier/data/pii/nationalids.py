"""Is this string of digits a number that a country could have given somebody? One function a scheme.

Each takes the digits (or characters) without separators, in the right length, and says yes or no. Written from the
public descriptions named at each; they know nothing of texts.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence

from espalier.data.pii.checksums import luhn, mod_11_2, mod_11_10, mod_97_10, verhoeff, weighted

_YEAR = 2000  # a leap year: what century a two-digit year means is not known where this is used


def _digits(code: str) -> list[int]:
    return [int(char) for char in code]


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return True


def _is_short_date(code: str, order: str) -> bool:
    """Six digits as a day in some century; order is "ymd" or "dmy"."""
    first, month, last = int(code[:2]), int(code[2:4]), int(code[4:6])
    year, day = (first, last) if order == "ymd" else (last, first)
    return _is_date(_YEAR + year, month, day) or (year == 0 and _is_date(_YEAR, month, day))


def is_us_ssn(code: str) -> bool:
    """Social security number that could have been issued (SSA, POMS RM 10201.035); without a check digit."""
    return code[:3] not in ("000", "666") and code[0] != "9" and code[3:5] != "00" and code[5:] != "0000"


def is_us_itin(code: str) -> bool:
    """Individual taxpayer number: 9xx and a group of 50-65, 70-88, 90-92, 94-99 (IRS Pub. 1915)."""
    group = int(code[3:5])
    return code[0] == "9" and (50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or group >= 94)


def is_us_routing(code: str) -> bool:
    """ABA routing number: Federal Reserve prefix and weights 3 7 1 (ABA, Routing Number Policy)."""
    prefix = int(code[:2])
    known = prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80
    return known and code != "0" * 9 and weighted(_digits(code), (3, 7, 1) * 3) % 10 == 0


def is_gb_nhs(code: str) -> bool:
    """NHS number: weights 10..2, modulo 11 (NHS Data Dictionary, NHS NUMBER)."""
    digits = _digits(code)
    check = 11 - weighted(digits, range(10, 1, -1)) % 11
    return len(set(code)) > 1 and check % 11 == digits[9] and check != 10


def is_gb_nino(code: str) -> bool:
    """National insurance number: no unused prefix (HMRC, NIM39110); without a check digit."""
    return code[:2].upper() not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ")


def is_de_steuer_id(code: str) -> bool:
    """Steuer-IdNr: one of the first ten digits twice or thrice, the others at most once; ISO 7064 MOD 11,10.

    BZSt, "Steuer-ID: Aufbau"; thrice (not in a row) is given since 2016.
    """
    counts = sorted(Counter(code[:10]).values(), reverse=True)
    shaped = counts[0] in (2, 3) and counts[1:2] != [2] and counts[1] == 1
    in_row = any(code[at] * 3 == code[at : at + 3] for at in range(8))
    return code[0] != "0" and shaped and not in_row and mod_11_10(_digits(code))


def is_fr_nir(code: str) -> bool:
    """Numéro de sécurité sociale: sex, year, month, place, order and a key of 97 (INSEE, NIR). 2A = 19, 2B = 18."""
    month, digits = int(code[3:5]), code.upper().replace("2A", "19").replace("2B", "18")
    if not digits.isdigit() or code[0] not in "123478" or not (1 <= month <= 12 or 20 <= month <= 42 or month >= 50):
        return False
    return 97 - int(digits[:13]) % 97 == int(digits[13:])


def is_es_dni(code: str) -> bool:
    """DNI (8 digits and a letter) or NIE (X, Y or Z first): the letter is the number modulo 23 (Interior Ministry)."""
    code = code.upper()
    number = code[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == code[-1]


_CF_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_CF_DIGITS = str.maketrans("LMNPQRSTUV", "0123456789")


def is_it_codice_fiscale(code: str) -> bool:
    """Codice fiscale with its control letter (DM 23/12/1976, table of odd and even places); digits may be letters."""
    values = [int(char, 36) - 10 if char.isalpha() else int(char) for char in code[:15]]
    total = sum(_CF_ODD[value] if place % 2 == 0 else value for place, value in enumerate(values))
    day = int(code[9:11].translate(_CF_DIGITS))
    return total % 26 == ord(code[15]) - 65 and (1 <= day <= 31 or 41 <= day <= 71)


def is_nl_bsn(code: str) -> bool:
    """Burgerservicenummer: the eleven test with a last weight of -1 (RvIG, Logisch Ontwerp BSN)."""
    return code != "0" * 9 and weighted(_digits(code), (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def is_be_national(code: str) -> bool:
    """Rijksregisternummer: 97 less the number modulo 97, with a 2 before it for births since 2000 (IBZ)."""
    month, day, key = int(code[2:4]), int(code[4:6]), int(code[9:])
    dated = month % 20 <= 12 and day <= 31  # both may be 0 where the day is not known; +20 and +40 are bis numbers
    return dated and any(97 - int(prefix + code[:9]) % 97 == key for prefix in ("", "2"))


def is_pl_pesel(code: str) -> bool:
    """PESEL: month carries the century, weights 1 3 7 9 (Ustawa o ewidencji ludności, art. 15)."""
    digits = _digits(code)
    century, month = divmod(int(code[2:4]), 20)
    year = (1900, 2000, 2100, 2200, 1800)[century] + int(code[:2])
    return _is_date(year, month, int(code[4:6])) and weighted(digits, (1, 3, 7, 9) * 2 + (1, 3, 1)) % 10 == 0


def is_se_personnummer(code: str) -> bool:
    """Personnummer of 10 digits (day + 60 is a samordningsnummer), Luhn (Skatteverket, SKV 704)."""
    day = int(code[4:6])
    dated = _is_short_date(f"{code[:4]}{day - 60 if day > 60 else day:02}", "ymd")
    return dated and luhn(_digits(code))


def is_fi_hetu(code: str) -> bool:
    """Henkilötunnus DDMMYYCZZZQ: Q is DDMMYYZZZ modulo 31 (DVV)."""
    number = int(code[:6] + code[7:10])
    return _is_short_date(code[:6], "dmy") and "0123456789ABCDEFHJKLMNPRSTUVWXY"[number % 31] == code[10]


def is_dk_cpr(code: str) -> bool:
    """CPR number: a date and, before 2007, modulo 11 (CPR-kontoret); so the date alone must do without the sum."""
    return _is_short_date(code[:6], "dmy")


def is_dk_cpr_summed(code: str) -> bool:
    """A CPR number whose modulo 11 sum holds as well."""
    return is_dk_cpr(code) and weighted(_digits(code), (4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def is_no_fodselsnummer(code: str) -> bool:
    """Fødselsnummer, D-number (day + 40) or H-number (month + 40): two sums modulo 11 (Skatteetaten)."""
    digits = _digits(code)
    day, month = int(code[:2]), int(code[2:4])
    dated = _is_short_date(
        f"{day - 40 if day > 40 else day:02}{month - 40 if month > 40 else month:02}{code[4:6]}", "dmy"
    )
    first = weighted(digits, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11
    return dated and first == 0 and weighted(digits, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def _brazilian(digits: Sequence[int], weights: Sequence[int]) -> bool:
    """The digit after those weighted is 11 less their sum modulo 11, 10 and 11 being 0."""
    return (-weighted(digits, weights) % 11) % 10 == digits[len(weights)]


def is_br_cpf(code: str) -> bool:
    """CPF: two digits modulo 11 (Receita Federal)."""
    digits = _digits(code)
    summed = _brazilian(digits, range(10, 1, -1)) and _brazilian(digits, range(11, 1, -1))
    return len(set(code)) > 1 and summed


def is_br_cnpj(code: str) -> bool:
    """CNPJ: two digits modulo 11 (Receita Federal)."""
    digits, weights = _digits(code), (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    return len(set(code)) > 1 and _brazilian(digits, weights[1:]) and _brazilian(digits, weights)


def is_in_aadhaar(code: str) -> bool:
    """Aadhaar: first digit 2 to 9, Verhoeff (UIDAI)."""
    return code[0] not in "01" and len(set(code)) > 1 and verhoeff(_digits(code))


def is_ca_sin(code: str) -> bool:
    """Social insurance number: Luhn; 8 begins businesses' numbers, 0 those for taxes alone (Service Canada, CRA)."""
    return code[0] != "8" and len(set(code)) > 1 and luhn(_digits(code))


def is_au_tfn(code: str) -> bool:
    """Tax file number of 9 digits: weights, modulo 11 (ATO)."""
    return len(set(code)) > 1 and weighted(_digits(code), (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def is_au_abn(code: str) -> bool:
    """Australian business number: less 1 at the first digit, weights, modulo 89 (ABR, Format of the ABN)."""
    digits = _digits(code)
    return digits[0] > 0 and weighted([digits[0] - 1, *digits[1:]], (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)) % 89 == 0


def is_za_id(code: str) -> bool:
    """South African identity number YYMMDDSSSSCAZ: date, citizenship 0 to 2, Luhn (Department of Home Affairs)."""
    return _is_short_date(code[:6], "ymd") and code[10] in "012" and luhn(_digits(code))


def is_cn_resident(code: str) -> bool:
    """Resident identity number of 18: date and ISO 7064 MOD 11-2 (GB 11643-1999)."""
    dated = 1850 <= int(code[6:10]) <= 2100 and _is_date(int(code[6:10]), int(code[10:12]), int(code[12:14]))
    values = [10 if char in "Xx" else int(char) for char in code]
    return code[0] in "12345689" and dated and mod_11_2(values)


def is_kr_rrn(code: str) -> bool:
    """Resident registration number: date and weights modulo 11 (given until October 2020)."""
    digits = _digits(code)
    check = (11 - weighted(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)) % 11) % 10
    return _is_short_date(code[:6], "ymd") and check == digits[12]


def is_sg_nric(code: str) -> bool:
    """NRIC or FIN: weights 2 7 6 5 4 3 2, modulo 11, a letter (ICA); T and G add 4, M adds 3."""
    total = weighted(_digits(code[1:8]), (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(code[0], 0)
    if code[0] == "M":
        return "XWUTRQPNJLK"[total % 11] == code[8]
    return ("JZIHGFEDCBA" if code[0] in "ST" else "XWUTRQPNMLK")[total % 11] == code[8]


_CURP = "0123456789ABCDEFGHIJKLMNÑOPQRSTUVWXYZ"


def is_mx_curp(code: str) -> bool:
    """CURP: date and a check digit modulo 10 over weights 18..2 (RENAPO, Instructivo Normativo)."""
    total = sum(_CURP.index(char) * (18 - place) for place, char in enumerate(code[:17]))
    return _is_short_date(code[4:10], "ymd") and (10 - total % 10) % 10 == int(code[17])


def is_iban(code: str) -> bool:
    """ISO 13616: the country's own length is for the caller; here MOD 97-10 of the turned number."""
    return mod_97_10(code[4:] + code[:4]) == 1
