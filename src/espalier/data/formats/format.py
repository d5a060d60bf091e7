"""`Format`: a shape rows may have, how it is known, read and written; and the list of those we know.

Adding one is a module with a `Format` and a line here. Knows no file, no Arrow and no task.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.types import Example
from espalier.data.formats.decoded import Decoded, Row

NO_MAPPING: Mapping[str, str] = {}
# name -> module of this package whose list FORMATS holds it.
MODULES = {
    "openai-chat": "openai",
    "openai-preference": "openai",
    "bedrock-conversation": "bedrock",
    "bedrock-claude": "bedrock",
    "bedrock-completion": "bedrock",
    "sharegpt": "sharegpt",
    "alpaca": "columns",
    "completion": "columns",
    "question-answer": "columns",
    "text-label": "columns",
    "text": "columns",
    "preference": "pairs",
    "kto": "pairs",
}


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


@functools.cache
def find_format(name: str) -> Format:
    """The format of that name; raises InvalidInput with a hint for an unknown one."""
    if name not in MODULES:
        raise InvalidInput(f"no format called {name!r}", hint=did_you_mean(name, MODULES))
    module = importlib.import_module(f"espalier.data.formats.{MODULES[name]}")
    found: Format = next(each for each in module.FORMATS if each.name == name)
    return found


@functools.cache
def all_formats() -> tuple[Format, ...]:
    """Every format, in a fixed order."""
    return tuple(find_format(name) for name in MODULES)


def decode_row(row: Row, name: str, mapping: Mapping[str, str] = NO_MAPPING) -> Decoded:
    """What a row of format `name` says. `mapping` renames its columns: {"prompt": "question"}.

    Raises InvalidInput saying what in the row is wrong, or which column the format does not have.
    """
    shape = find_format(name)
    decoded = shape.decode(row, resolve_columns(shape, mapping))
    decoded.form = name
    return decoded


def encode_example(example: Example, name: str) -> dict[str, object]:
    """The example as a row of format `name`; raises InvalidInput for what the format cannot hold."""
    return find_format(name).encode(example)


def resolve_columns(shape: Format, mapping: Mapping[str, str]) -> Mapping[str, str]:
    """The format's columns with those renamed that `mapping` names; raises InvalidInput for one it does not have."""
    if not mapping:
        return shape.columns
    for name in mapping:
        if name not in shape.columns:
            raise InvalidInput(f"{shape.name} has no column {name!r}", hint=did_you_mean(name, shape.columns))
    return {**shape.columns, **mapping}


def fitting_formats(row: Row) -> list[Format]:
    """The formats a row may be of, those left out that another fitting one contains. None, one, or an ambiguity."""
    found = [shape for shape in all_formats() if shape.matches(row)]
    contained = {name for shape in found for name in shape.over}
    return [shape for shape in found if shape.name not in contained]
