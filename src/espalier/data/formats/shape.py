"""`Format`: a shape rows may have, how it is known, read and written. Knows no format by name, no file and no Arrow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from espalier.core.types import Example
from espalier.data.formats.decoded import Decoded, Row


@dataclass(frozen=True, slots=True)
class Format:
    """A row shape.

    columns: its columns, by the name a mapping calls them, with the name they have when no mapping says otherwise.
    needed: those of them a row must have to be taken for this format.
    fits: whether a row that has them is of this shape; looks at types, not at whether every value is usable.
    over: formats whose columns are a part of this one's: where both fit, this one is meant.
    decode: (row, columns) -> what it says; raises InvalidInput.
    encode: Example -> row; raises InvalidInput for what the format cannot hold.
    """

    name: str
    title: str
    url: str
    holds: str  # conversations, pairs, labels or text
    columns: Mapping[str, str]
    needed: tuple[str, ...]
    decode: Callable[[Row, Mapping[str, str]], Decoded]
    encode: Callable[[Example], dict[str, object]]
    fits: Callable[[Row], bool] = lambda row: True
    over: tuple[str, ...] = field(default=())

    def matches(self, row: Row) -> bool:
        """Whether the row looks like this format under its usual column names."""
        return all(self.columns[name] in row for name in self.needed) and self.fits(row)
