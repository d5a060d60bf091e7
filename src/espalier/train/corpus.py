"""What is trained on: datasets with their shares, and documents by number. Knows no method and no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from espalier.tokens.pack import Int64, Strip


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset of the mix: `share` is its tokens' share of the main dataset's (the main one has 1)."""

    name: str  # "" = the main dataset
    folder: Path
    digest: str = ""
    share: float = 1.0


class Documents(Protocol):
    """Training documents by number."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> Sequence[int] | Int64:
        """Tokens computed for each. (n,)"""
        ...

    @property
    def digest(self) -> str:
        """Of all of them: two sets of the same digest train the same."""
        ...

    def strip(self, index: int) -> Strip: ...
