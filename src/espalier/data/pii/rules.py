"""All rules together: one RE2 union finds where something may begin, the rules of that byte judge it in order.

RE2 runs in time linear in the text, so no input can make it hang. A rule earlier in the list wins at the same place;
findings never overlap.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from espalier.data.pii import codes, contacts, credentials
from espalier.data.pii.contacts import find_local
from espalier.data.pii.finding import Finding, Rule
from espalier.data.pii.numerals import number_rules

Kind = Literal[
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
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# A URL is personal only where it leads to a person, and a place may be a shop's.
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind not in ("URL", "COORDINATES"))
_OPENING_BYTES = 256  # within so many, what may be a match shows itself
_MEMORY_BYTES = 64 << 20  # of RE2's automata; when they do not fit it goes on, slower


@dataclass(frozen=True, slots=True)
class Candidates:
    """The rules whose matches may begin with some byte. `screen` is the union of all but the last of them."""

    rules: tuple[tuple[Any, Rule], ...]
    screen: Any

    def judge(self, text: bytes, start: int) -> Finding | None:
        """What the first rule that matches here and stands by it says."""
        rules = self.rules
        if self.screen is not None and self.screen.match(text, start, start + _OPENING_BYTES) is None:
            rules = rules[-1:]  # numbers, nearly always
        for pattern, rule in rules:
            match = pattern.match(text, start, start + rule.longest_bytes)
            if match is not None:
                found = rule.judge(text, start, match.end())
                if found is not None:
                    return found
        return None


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The rules of some kinds, compiled. Mail addresses are looked for from their `@`, the others by the union."""

    kinds: tuple[str, ...]
    union: Any  # None where mail addresses alone are looked for
    by_first: tuple[Candidates, ...]  # 256: what may begin with this byte
    mail: Candidates | None

    def scan(self, text: bytes) -> Iterator[Finding]:
        """Findings in order, never overlapping. Positions are byte offsets."""
        position, size = 0, len(text)
        other = -1  # where the next match of the union begins
        at = text.find(b"@") if self.mail else -1
        while True:
            if other < position:
                match = self.union.search(text, position) if self.union is not None else None
                other = size if match is None else match.start()
            local = size if at < 0 else find_local(text, position, at)
            if self.mail is not None and local <= other and local < size:
                found = self.mail.judge(text, local) if local >= 0 else None
                if found is None:  # nor is any shorter end of what stands before this @ an address
                    at = text.find(b"@", at + 1)
                    continue
            elif other < size:
                found = self.by_first[text[other]].judge(text, other)
            else:
                return
            if found is not None:
                yield found
            position = other + 1 if found is None else max(found.end, found.start + 1)


@functools.lru_cache(maxsize=32)
def load_rules(kinds: tuple[str, ...] = DEFAULT_KINDS) -> Ruleset | None:
    """The rules of these kinds; None for none."""
    import re2

    options = re2.Options()
    options.max_mem = _MEMORY_BYTES
    wanted = frozenset(kinds)
    rules = [rule for rule in (*credentials.RULES, *contacts.RULES, *codes.RULES) if wanted.intersection(rule.kinds)]
    rules += number_rules(wanted)
    mail = "EMAIL" in wanted
    if not rules and not mail:
        return None
    compiled = [(re2.compile(rule.pattern.encode(), options), rule) for rule in rules]
    firsts = [re.compile(f"[{rule.first}]".encode("latin-1")) for rule in rules]

    def unite(some: Sequence[Rule]) -> Any:
        return re2.compile("|".join(f"(?:{rule.opening or rule.pattern})" for rule in some).encode(), options)

    def gather(byte: int) -> Candidates:
        pairs = tuple(pair for pair, first in zip(compiled, firsts, strict=True) if first.match(bytes([byte])))
        return Candidates(pairs, unite([rule for _, rule in pairs[:-1]]) if len(pairs) > 2 else None)

    return Ruleset(
        tuple(kind for kind in KINDS if kind in wanted),
        unite(rules) if rules else None,
        tuple(gather(byte) for byte in range(256)),
        Candidates(((re2.compile(contacts.MAIL.pattern.encode(), options), contacts.MAIL),), None) if mail else None,
    )
