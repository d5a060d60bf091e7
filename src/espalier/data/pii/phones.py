"""Telephone numbers as thirty countries write them, or after a word that announces one.

A number that begins with + or 00, an area code in brackets, a 0 and a gap, or is grouped as in America, France, Brazil
or Japan, speaks for itself. Others ("5551234", "661 299 722") need a word: tel, call, fax, mobile ...
"""

from __future__ import annotations

import re

from espalier.data.pii.finding import Finding, after, before

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
