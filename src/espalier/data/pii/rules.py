"""The patterns: one RE2 union scans a text once; each kind has its validator.

RE2 runs in time linear in the text, so no input can make it hang. An alternative earlier in the list wins at the
same position.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from espalier.data.pii.validators import (
    Extent,
    Validator,
    accept,
    check_card,
    check_email,
    check_iban,
    check_ipv4,
    check_password,
    check_phone,
    check_spoken_phone,
    check_ssn,
)

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"


@dataclass(frozen=True, slots=True)
class Rule:
    """What to look for and how to judge it. `kind` is the word put in its place."""

    kind: str
    pattern: str  # RE2 syntax, no capturing groups
    check: Validator


_EXTENSION = r"(?: ?(?:x|ext\.? ?)\d{1,5}\b)?"
_PASSWORD = r"(?i:\b(?:password|passwd|pwd|passwort|api[_ -]?key|secret|access[_ -]?token) ?[:=] ?)[^\s,;]{6,}"
_SPOKEN = (
    r"(?i:\b(?:phone|telephone|tel|mobile|cell|fax|whatsapp|call|ring|reach)\b)[^\d\n]{1,20}\d[\d ()./-]{4,18}\d\b"
)
RULES = (
    Rule("SECRET", r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)-----END [A-Z ]*PRIVATE KEY-----", accept),
    Rule("SECRET", r"\b(?:sk|pk|rk)[-_](?:[a-z]+[-_]){0,3}[A-Za-z0-9_-]{16,}", accept),
    Rule("SECRET", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", accept),
    Rule("SECRET", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|glpat-[\w-]{20,})", accept),
    Rule("SECRET", r"\b(?:xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,})", accept),
    Rule("SECRET", r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}", accept),
    Rule("SECRET", _PASSWORD, check_password),
    Rule("EMAIL", rf"[A-Za-z0-9._%+'-]*[A-Za-z0-9_%+-]@{_LABEL}(?:\.{_LABEL})*\.[A-Za-z]{{2,15}}\b", check_email),
    Rule("IBAN", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", check_iban),
    Rule("CARD", r"\b(?:\d{4}[ -]?\d{6}[ -]?\d{5}|\d{4}(?:[ -]?\d{4}){3}(?:[ -]?\d{1,3})?|\d{13,19})\b", check_card),
    Rule("SSN", r"\b\d{3}-\d{2}-\d{4}\b", check_ssn),
    Rule("IP", r"\b(?:\d{1,3}\.){3}\d{1,3}\b", check_ipv4),
    Rule("PHONE", rf"(?:\+|\b00)[1-9]\d{{0,2}}(?:[ ./-]{{0,2}}\(?\d{{1,5}}\)?){{1,6}}{_EXTENSION}", check_phone),
    Rule("PHONE", rf"(?:\b1[ .-])?\(\d{{2,5}}\)[ -]?\d{{3,4}}[ .-]?\d{{3,5}}{_EXTENSION}", check_phone),
    Rule("PHONE", rf"(?:\b1[ .-])?\b\d{{3}}[ .-]\d{{3}}[ .-]\d{{4}}{_EXTENSION}\b", check_phone),
    Rule("PHONE", rf"\b0[1-9]\d{{0,4}}[ /-]\d{{3,8}}(?:[ -]\d{{2,6}}){{0,3}}{_EXTENSION}\b", check_phone),
    Rule("PHONE", _SPOKEN, check_spoken_phone),
)
KINDS = tuple(dict.fromkeys(rule.kind for rule in RULES))


@dataclass(frozen=True, slots=True)
class Finding:
    """One stretch of a text that is personal data."""

    start: int
    end: int
    kind: str


def find_patterns(text: str, kinds: tuple[str, ...] = KINDS) -> Iterator[Finding]:
    """Validated findings, in order, never overlapping."""
    union, rules = _compile(kinds)
    position = 0
    while (match := union.search(text, position)) is not None:
        start, end = match.span()
        found = _judge(rules, match, text)
        if found:
            yield found
            end = found.end
        position = max(end, start + 1)


def _judge(rules: tuple[tuple[Rule, Any], ...], match: Any, text: str) -> Finding | None:
    start = match.start()
    leading = int(match.lastgroup[1:])
    extent = rules[leading][0].check(text, start, match.end())
    if extent:
        return Finding(*extent, rules[leading][0].kind)
    for rule, pattern in rules[leading + 1 :]:  # a number that is no card may still be a phone
        other = pattern.match(text, start)
        found: Extent | None = rule.check(text, start, other.end()) if other else None
        if found:
            return Finding(*found, rule.kind)
    return None


@functools.cache
def _compile(kinds: tuple[str, ...]) -> tuple[Any, tuple[tuple[Rule, Any], ...]]:
    import re2

    rules = tuple((rule, re2.compile(rule.pattern)) for rule in RULES if rule.kind in kinds)
    union = "|".join(f"(?P<r{index}>{rule.pattern})" for index, (rule, _) in enumerate(rules))
    return re2.compile(union), rules
