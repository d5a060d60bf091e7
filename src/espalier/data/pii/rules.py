"""All rules together: one RE2 union finds where something may begin, the rules of that byte judge it in order.

RE2 runs in time linear in the text, so no input can make it hang. A rule earlier in the list wins at the same place;
findings never overlap.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from espalier.data.pii import codes, contacts, credentials
from espalier.data.pii.finding import Finding, Rule
from espalier.data.pii.numerals import number_rules

KINDS = (
    "SECRET",
    "EMAIL",
    "PHONE",
    "CARD",
    "IBAN",
    "BANK_CODE",
    "CRYPTO",
    "SSN",
    "NATIONAL_ID",
    "DOCUMENT",
    "BIRTH_DATE",
    "IP",
    "MAC",
    "URL",
    "COORDINATES",
)
# A URL is personal only where it leads to a person, and a place may be a shop's.
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind not in ("URL", "COORDINATES"))
_MEMORY_BYTES = 256 << 20  # of RE2's automata; when they do not fit it goes on, slower


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The rules of some kinds, compiled."""

    kinds: tuple[str, ...]
    union: Any
    by_first: tuple[tuple[tuple[Any, Rule], ...], ...]  # 256: what may begin with this byte

    def scan(self, text: bytes) -> Iterator[Finding]:
        """Findings in order, never overlapping. Positions are byte offsets."""
        position, search, by_first = 0, self.union.search, self.by_first
        while (match := search(text, position)) is not None:
            start = match.start()
            found = _judge(by_first[text[start]], text, start)
            if found is None:
                position = start + 1
            else:
                yield found
                position = max(found.end, start + 1)


def _judge(candidates: Sequence[tuple[Any, Rule]], text: bytes, start: int) -> Finding | None:
    for pattern, rule in candidates:
        match = pattern.match(text, start)
        if match is not None:
            found = rule.judge(text, start, match.end())
            if found is not None:
                return found
    return None


@functools.lru_cache(maxsize=32)
def load_rules(kinds: tuple[str, ...] = DEFAULT_KINDS) -> Ruleset | None:
    """The rules of these kinds; None for none."""
    import re2

    options = re2.Options()
    options.max_mem = _MEMORY_BYTES
    wanted = frozenset(kinds)
    rules = [rule for rule in (*credentials.RULES, *contacts.RULES, *codes.RULES) if wanted.intersection(rule.kinds)]
    rules += number_rules(wanted)
    if not rules:
        return None
    compiled = [(re2.compile(rule.pattern.encode(), options), rule) for rule in rules]
    firsts = [re.compile(f"[{rule.first}]".encode("latin-1")) for rule in rules]
    table = tuple(
        tuple(pair for pair, first in zip(compiled, firsts, strict=True) if first.match(bytes([byte])))
        for byte in range(256)
    )
    union = re2.compile("|".join(f"(?:{rule.pattern})" for rule in rules).encode(), options)
    return Ruleset(tuple(kind for kind in KINDS if kind in wanted), union, table)
