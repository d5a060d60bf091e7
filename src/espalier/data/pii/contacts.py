"""Rules for how people and their machines are reached: mail addresses, URLs, IP and MAC addresses."""

from __future__ import annotations

import ipaddress
import re

from espalier.data.pii.finding import Extent, before, rule

# A letter of a script with upper and lower case: elsewhere words are not set apart by spaces, and a whole sentence
# before an address would be taken for a part of it.
_LETTER = r"A-Za-z0-9\p{Latin}\p{Greek}\p{Cyrillic}"
_LABEL = rf"[{_LETTER}](?:[{_LETTER}-]*[{_LETTER}])?"
_FILE_SUFFIXES = frozenset(
    b"png jpg jpeg gif svg html htm py rs txt service js css so conf timer socket target mount".split()
)


_LONGEST_LOCAL_BYTES = 128  # 64 characters (RFC 5321, 4.5.3.1.1), each of two bytes at most


# Backwards: ASCII, or two or three bytes of a letter of Latin, Greek or Cyrillic.
_LACOL = re.compile(rb"(?:[A-Za-z0-9._%+'-]|[\x80-\xbf][\xc3-\xd4]|[\x80-\xbf][\xb8-\xbb]\xe1)*")


def find_local(text: bytes, position: int, at: int) -> int:
    """Where the local part before the `@` at `at` begins, not before `position`; -1 where it is none, or too long."""
    low = max(position, at - _LONGEST_LOCAL_BYTES - 1)
    if low >= at:
        return -1
    match = _LACOL.match(text[low:at][::-1])
    size = match.end() if match else 0
    return at - size if 0 < size <= _LONGEST_LOCAL_BYTES else -1


def check_email(text: bytes, start: int, end: int) -> Extent | None:
    """Refuses what ends like a file name (`icon@2x.png`) and a local part with stray dots (RFC 5321, 4.1.2)."""
    local, _, domain = text[start:end].rpartition(b"@")
    if domain.rsplit(b".", 1)[-1].lower() in _FILE_SUFFIXES or local.endswith(b".") or b".." in local:
        return None
    return start, end


def check_ipv4(text: bytes, start: int, end: int) -> Extent | None:
    """Four numbers up to 255 without leading zeros; not loopback or unspecified, not part of a longer dotted number."""
    parts = text[start:end].split(b".")
    if any(int(part) > 255 or (len(part) > 1 and part[:1] == b"0") for part in parts) or parts[0] in (b"0", b"127"):
        return None
    glued = _DOTTED_BEFORE.search(text[max(0, start - 2) : start]) or _DOTTED_AFTER.match(text[end : end + 2])
    return None if glued or _VERSION.search(before(text, start)) else (start, end)


_DOTTED_BEFORE, _DOTTED_AFTER = re.compile(rb"\w\.$|v$"), re.compile(rb"\.\d")
_VERSION = re.compile(
    rb"(?i)(?:versions?|releases?|sections?|sect?\.|rfc ?\d+|chapter|clause|paragraph|identifier|oid|\xc2\xa7)"
    rb"(?:[\s(:>=<~#\"'*_-]|of)*$"
)


def check_ipv6(text: bytes, start: int, end: int) -> Extent | None:
    """RFC 4291 text, not loopback, with a group of three digits or at least four groups (`a[1::2]` is Python)."""
    found = text[start:end]
    groups = [group for group in found.split(b":") if group]
    if len(groups) < 4 and all(len(group) < 3 for group in groups):
        return None
    if not any(48 <= byte <= 57 for byte in found) or _GLUED_BEFORE.search(text[max(0, start - 1) : start]):
        return None
    if _GLUED_AFTER.match(text[end : end + 1]):
        return None
    try:
        address = ipaddress.IPv6Address(found.decode())
    except ValueError:
        return None
    return None if address.is_loopback or address.is_unspecified else (start, end)


_GLUED_BEFORE, _GLUED_AFTER = re.compile(rb"[\w:.]"), re.compile(rb"[\w:]")


def check_mac(text: bytes, start: int, end: int) -> Extent | None:
    """Six octets with one separator throughout (IEEE 802), not all alike, not part of a longer row."""
    found = text[start:end]
    separators = {found[place] for place in range(2, 17, 3)}
    glued = text[max(0, start - 1) : start] in (b":", b"-") or text[end : end + 1] in (b":", b"-")
    if len(separators) > 1 or glued or len(set(found[0:2].lower() + found[3:5].lower() + found[6:].lower())) < 3:
        return None
    return start, end


def check_url(text: bytes, start: int, end: int) -> Extent | None:
    """Without the full stop or bracket that ends the sentence."""
    return start, start + len(text[start:end].rstrip(b".,;:!?)]}'\""))


_H = r"[0-9A-Fa-f]{1,4}"
MAIL = rule(
    "EMAIL",
    "email",
    r"\w.%+'\x80-\xff-",
    rf"[{_LETTER}._%+'-]*[{_LETTER}_%+-]@{_LABEL}(?:\.{_LABEL})*\.[A-Za-z]{{2,15}}\b",
    check_email,
)
RULES = (
    rule("URL", "url", "hHfF", r"\b(?i:https?|ftp)://[^\s<>\"'`\x00]{3,}", check_url),
    rule("MAC", "mac", "0-9A-Fa-f", r"\b[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}\b", check_mac),
    rule(
        "IP",
        "ipv6",
        "0-9A-Fa-f:",
        rf"(?:(?:{_H}:){{7}}{_H}|(?:{_H}:){{1,6}}:(?:{_H}(?::{_H}){{0,5}})?|::{_H}(?::{_H}){{0,6}})",
        check_ipv6,
    ),
    rule("IP", "ipv4", "0-9", r"\b(?:\d{1,3}\.){3}\d{1,3}\b", check_ipv4),
)
