"""`DriftSpec`: what is compared, how, and from where on it is an alarm. The threshold file is this type as YAML.

Light to import: faces know it before anything is measured.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from espalier.core.errors import did_you_mean
from espalier.core.types import Spec

KINDS = ("psi", "ks", "vocabulary", "embedding")
Part = Literal["prompt", "answer", "all"]


class Limits(Spec):
    """From where on a test warns and alarms. What is not given is as the test's kind has it by default."""

    warn: float | None = Field(
        None, ge=0, description="psi: warn from this index on; others: from this corrected p down"
    )
    alarm: float | None = Field(
        None, ge=0, description="psi: alarm from this index on; others: from this corrected p down"
    )
    least: float | None = Field(None, ge=0, description="a smaller statistic is ok however sure it is (not for psi)")
    off: bool = Field(False, description="leave this test out")


# PSI by the rule of thumb of credit scoring (Siddiqi 2006); p as is usual. A KS distance below 0.1 is no news.
DEFAULTS = {
    "psi": Limits(warn=0.1, alarm=0.25, least=0.0),
    "ks": Limits(warn=0.05, alarm=0.01, least=0.1),
    "vocabulary": Limits(warn=0.05, alarm=0.01, least=0.0),
    "embedding": Limits(warn=0.05, alarm=0.01, least=0.0),
}


class DriftSpec(Spec):
    """How two populations are compared."""

    text: Part = Field("prompt", description="prompt: what is asked, without system turns; answer; or all of a row")
    slices: tuple[str, ...] = Field((), description="also each value of these: a tag, `split`, or label:FIELD")
    categories: tuple[str, ...] = Field(
        ("label", "language", "format"), description="columns whose values are compared by PSI, named as slices are"
    )
    limits: dict[str, Limits] = Field({}, description="by kind (psi, ks, vocabulary, embedding) or test (psi:words)")
    min_rows: int = Field(50, ge=10, description="a slice with fewer rows on either side is told as too few")
    bins: int = Field(10, ge=2, le=100, description="quantile bins of the reference for the PSI of a number")
    sample: int = Field(10_000, ge=100, le=1_000_000, description="rows kept of each slice and side")
    tested: int = Field(500, ge=20, le=5_000, description="rows of those for the permutation tests")
    permutations: int = Field(9_999, ge=99, le=1_000_000, description="at most; ended early where nothing is found")
    vocabulary: int = Field(1_000, ge=10, le=50_000, description="commonest words (or tokens) told apart")
    max_chars: int = Field(2_000, ge=100, description="of a text for words and embeddings; lengths are of all of it")
    max_slices: int = Field(100, ge=1, le=10_000, description="more values than this in all slices are refused")
    seed: int = Field(0, ge=0, lt=1 << 63, description="of the samples and the permutations")

    @model_validator(mode="after")
    def _check(self) -> DriftSpec:
        for name in self.limits:
            kind, _, of = name.partition(":")
            if kind not in KINDS or (of and kind not in ("psi", "ks")):
                raise ValueError(f"limits: there is no test {name!r}; {did_you_mean(kind, KINDS)}")
            limits = self.find_limits(name)
            if kind == "psi" and (limits.warn or 0) > (limits.alarm or 0):
                raise ValueError(f"limits.{name}: warn must not be above alarm: a larger index is worse")
            if kind != "psi" and (limits.warn or 0) < (limits.alarm or 0):
                raise ValueError(f"limits.{name}: warn must not be below alarm: a smaller p is worse")
        return self

    def find_limits(self, test: str) -> Limits:
        """The limits of a test such as `psi:words`: its own, else its kind's, else the defaults, key by key."""
        kind = test.partition(":")[0]
        found = DEFAULTS[kind]
        for name in (kind, test):
            if name in self.limits:
                found = found.model_copy(update=self.limits[name].model_dump(exclude_unset=True, exclude_none=True))
        return found
