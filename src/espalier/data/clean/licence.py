"""Drops documents whose licence is not allowed, and pages whose authors asked robots to stay away.

Reads the tags `licence` (an SPDX expression, https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/) and
`robots` (the content of a page's <meta name="robots">), which readers and sources set. Knows no law.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field

from espalier.core.types import Spec
from espalier.data.clean.rewriting import say_drops
from espalier.data.flow.batch import tag_column
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.step import CleanStep


class LicenceSpec(Spec):
    """Keep documents by licence, and heed robots tags."""

    step: Literal["licence"] = "licence"
    keep: tuple[str, ...] = Field((), description="SPDX ids to keep, * for any ending: MIT, CC-BY-*; empty: all")
    deny: tuple[str, ...] = Field((), description="SPDX ids to drop, even where `keep` holds them: *-NC-*, GPL-*")
    unknown: Literal["keep", "drop"] = Field("keep", description="a document without the tag `licence`")
    robots: tuple[str, ...] = Field(
        ("noai",),
        description="drop pages whose robots tag holds one of these: noai, noindex, none ...; empty: heed none",
    )


@dataclass(frozen=True, slots=True)
class LicenceCheck:
    """The prepared step: drops with "licence not allowed: ...", "licence unknown: ..." or "robots noai: ..."."""

    spec: LicenceSpec

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        licences, robots = (tag_column(batch, name).to_pylist() for name in ("licence", "robots"))
        judge = functools.cache(self.judge)
        return say_drops([judge(*tags) for tags in zip(licences, robots, strict=True)])

    def judge(self, licence: str | None, robots: str | None) -> str | None:
        """Why a document with these tags is dropped; None where it stays."""
        asked = {word.strip() for word in re.split(r"[,;\s]+", (robots or "").lower())}
        for word in self.spec.robots:
            if word.lower() in asked:
                return f"robots {word}: the page says {robots}"
        if not licence:
            return "licence unknown: there is no tag `licence`" if self.spec.unknown == "drop" else None
        return None if is_allowed(licence, self._is_kept) else f"licence not allowed: {licence}"

    def _is_kept(self, identifier: str) -> bool:
        name = identifier.lower()
        kept = not self.spec.keep or any(fnmatchcase(name, pattern.lower()) for pattern in self.spec.keep)
        return kept and not any(fnmatchcase(name, pattern.lower()) for pattern in self.spec.deny)


def is_allowed(expression: str, allow: Callable[[str], bool]) -> bool:
    """Whether an SPDX expression leaves a choice all of whose licences are allowed.

    What is no expression (a sentence) is asked for as it is.
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    parser = _Expression(tokens, allow)
    allowed = parser.read_any()
    return allowed if parser.is_done else allow(expression)


class _Expression:
    """expression = term {OR term}; term = factor {AND factor}; factor = id [WITH exception] | "(" expression ")"."""

    def __init__(self, tokens: list[str], allow: Callable[[str], bool]) -> None:
        self._tokens, self._allow = tokens, allow
        self._at = 0
        self._sound = True

    @property
    def is_done(self) -> bool:
        return self._sound and self._at == len(self._tokens)

    def read_any(self) -> bool:
        allowed = self._read_all()
        while self._take("or"):
            allowed = self._read_all() or allowed
        return allowed

    def _read_all(self) -> bool:
        allowed = self._read_one()
        while self._take("and"):
            allowed = self._read_one() and allowed
        return allowed

    def _read_one(self) -> bool:
        if self._take("("):
            allowed = self.read_any()
            self._sound = self._take(")") and self._sound
            return allowed
        if self._at == len(self._tokens):
            self._sound = False
            return False
        identifier = self._tokens[self._at]
        self._at += 1
        if self._take("with"):
            self._at += 1
        return self._allow(identifier)

    def _take(self, word: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at].lower() == word:
            self._at += 1
            return True
        return False


def prepare(spec: LicenceSpec, folder: Path) -> LicenceCheck:
    """Ready to run; names no file."""
    return LicenceCheck(spec)


STEP = CleanStep("licence", 1, LicenceSpec, prepare)
