"""A population of texts, read one row at a time: a bounded sample of everything and of each slice.

A row is sampled by a hash of its id, so the same rows are kept whatever their order, and a version against itself has
the same sample on both sides. Knows no test and no threshold.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.data.answers import read_fields
from espalier.data.drift.report import WHOLE
from espalier.data.drift.spec import DriftSpec, Part

Encode = Callable[[str], Sequence[int]]
LABEL = "label:"
_MAX_VALUE_CHARS = 200  # a longer value names no slice


@dataclass(frozen=True, slots=True)
class Row:
    """One text as it is compared: the numbers are of all of it, `text` is its beginning."""

    text: str
    numbers: dict[str, int]  # chars, words, tokens
    values: dict[str, str]  # category -> value; absent where the row has none
    tokens: tuple[int, ...] | None = None  # of `text`, where there is a tokenizer


@dataclass(slots=True)
class Sample:
    """Rows of one slice: how many there are, and those whose hashes are least (a reservoir of fixed size)."""

    size: int
    count: int = 0
    _heap: list[tuple[int, int, Row]] = field(default_factory=list)

    def add(self, priority: int, row: Row) -> None:
        """One more row; kept while there is room, or instead of one of a greater priority."""
        self.count += 1
        item = (-priority, -self.count, row)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    def rows(self) -> list[Row]:
        """By priority, so that the first n are a sample as well."""
        return [row for *_, row in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


Population = dict[str, Sample]  # slice ("everything", "split=train", ...) -> its sample


def sample_population(
    examples: Iterable[Example], spec: DriftSpec, encode: Encode | None = None, *, placed: bool = True
) -> Population:
    """Read all of `examples`; those without the part that is compared are left out.

    encode: text -> token ids. placed: whether the rows have a split; live prompts have none.

    Raises InvalidInput when the slices take more than `spec.max_slices` values.
    """
    found: Population = {WHOLE: Sample(spec.sample)}
    wanted = tuple(dict.fromkeys((*spec.categories, *spec.slices)))
    for example in examples:
        text = text_of(example, spec.text)
        if not text.strip():
            continue
        row = _make_row(text, _values_of(example, wanted, placed=placed), spec.max_chars, encode)
        key = hashlib.blake2b(example.id.encode(), digest_size=8, salt=spec.seed.to_bytes(16, "little"))
        priority = int.from_bytes(key.digest(), "big")
        found[WHOLE].add(priority, row)
        for name in (f"{column}={row.values[column]}" for column in spec.slices if column in row.values):
            if name not in found:
                _check_count(found, name, spec)
                found[name] = Sample(spec.sample)
            found[name].add(priority, row)
    return found


def text_of(example: Example, part: Part) -> str:
    """What of an example is compared; empty where it has no such part. System turns are the same in every row."""
    turns = [turn for turn in (example.messages or []) if turn.role != "system"]
    last: list[Message] = turns[-1:] if turns and turns[-1].role == "assistant" else []
    asked = turns[: len(turns) - len(last)]
    answer = example.chosen or last
    if part == "answer":
        chosen = answer
    elif part == "prompt":
        chosen = asked
    else:
        chosen = [*asked, *answer]
    return "\n".join(turn.content for turn in chosen) or ("" if part == "answer" else example.text)


def _make_row(text: str, values: dict[str, str], max_chars: int, encode: Encode | None) -> Row:
    numbers = {"chars": len(text), "words": len(text.split())}
    tokens = None
    if encode:
        ids = encode(text)
        numbers["tokens"] = len(ids)
        tokens = tuple(ids[:max_chars])
    return Row(text[:max_chars], numbers, values, tokens)


def _values_of(example: Example, columns: Sequence[str], *, placed: bool) -> dict[str, str]:
    """The example's value in each column that it has one in."""
    fields: dict[str, str] | None = None
    values: dict[str, str] = {}
    for column in columns:
        if column == "split" and placed:
            values[column] = example.split
        elif column.startswith(LABEL):
            if fields is None:
                fields = read_fields(text_of(example, "answer"))
            if (value := fields.get(column.removeprefix(LABEL))) is not None:
                values[column] = value[:_MAX_VALUE_CHARS]
        elif (value := example.tags.get(column)) is not None:
            values[column] = value[:_MAX_VALUE_CHARS]
    return values


def _check_count(found: Population, name: str, spec: DriftSpec) -> None:
    if len(found) <= spec.max_slices:
        return
    column = name.partition("=")[0]
    raise InvalidInput(
        f"the slices take more than {spec.max_slices} values; the last new one is {name[:80]!r}",
        hint=f"leave {column!r} out of the slices, or raise max_slices",
    )
