"""What a recipe says of redaction: which kinds, and what is done with each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier.core.types import Spec
from espalier.data.pii.rules import DEFAULT_KINDS, Kind

Mode = Literal["mask", "hash", "pseudonymise", "drop", "flag", "keep"]


class RedactSpec(Spec):
    """Replace personal data and secrets."""

    step: Literal["redact"] = "redact"
    kinds: tuple[Kind, ...] = Field(DEFAULT_KINDS, description="kinds found by pattern and validator")
    mode: Mode = Field(
        "mask",
        description="mask: [EMAIL]; hash: [EMAIL:...], the same for the same value; pseudonymise: a look-alike, the "
        "same for the same value; drop: leave the document out; flag: only tag it; keep: only count",
    )
    modes: dict[str, Mode] = Field(
        {}, description="another mode for some kinds, NAME and those of recognizers included"
    )
    salt: str = Field(
        "", description="key of hashes and pseudonyms: env:NAME, or a file relative to the source folder; never stored"
    )
    names: str = Field("", description="CSV file with people's names, relative to the source folder; empty = none")
    name_columns: tuple[str, ...] = Field((), description="its columns that hold names; empty = those called like one")
    name_parts: bool = Field(True, description="also redact first and last names standing alone, when capitalised")
    recognizers: tuple[str, ...] = Field((), description="plug-ins that find more: presidio, or your own")

    def mode_of(self, kind: str) -> Mode:
        """What is done with findings of a kind."""
        return self.modes.get(kind, self.mode)
