"""`DatasetDiff`: what comparing two versions of a dataset says. Light to import: faces know it before they compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from espalier.core.types import Spec


class RowNote(Spec):
    """One row that is different, by its first words."""

    kind: Literal["added", "removed", "changed"]
    id: str
    text: str


class Range(Spec):
    """Where nine in ten values lie, and their middle."""

    p5: int
    median: int
    p95: int


class DatasetDiff(Spec):
    """Pairs are (before, after). `moved` counts unchanged rows that are in another split now."""

    before: str = ""
    after: str = ""
    examples: tuple[int, int]
    unchanged: int
    added: int
    removed: int
    changed: int
    moved: dict[str, int]
    rows: tuple[RowNote, ...]
    counts: dict[str, dict[str, tuple[int, int]]]
    lengths: dict[str, tuple[Range, Range]]
    recipe: tuple[str, ...]

    def to_text(self) -> str:
        """For a terminal."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.before or 'before'} -> {self.after or 'after'}: {self.examples[0]} -> {self.examples[1]} examples"
        yield f"  {self.unchanged} unchanged, {self.added} added, {self.removed} removed, {self.changed} changed"
        for move, count in self.moved.items():
            yield f"  {count} moved {move}"
        if self.recipe:
            yield "Recipe"
            yield from (f"  {line}" for line in self.recipe)
        for name, values in self.counts.items():
            yield name.capitalize()
            yield from (f"  {value or '(none)'}  {one} -> {other}" for value, (one, other) in values.items())
        if self.lengths:
            yield "Length of an example (5 %, median, 95 %)"
            for unit, (one, other) in self.lengths.items():
                told = " -> ".join(f"{each.p5}, {each.median}, {each.p95}" for each in (one, other))
                yield f"  {unit}  {told}"
        for kind in ("added", "removed", "changed"):
            shown = [row for row in self.rows if row.kind == kind]
            if shown:
                yield f"{kind.capitalize()}, the first {len(shown)}"
                yield from (f"  {row.id}  {row.text}" for row in shown)
