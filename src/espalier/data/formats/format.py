"""The formats there are: found by name, or by what a row looks like; a row read, an example written.

Adding one is a module with a list FORMATS and a line here. Knows no file, no Arrow and no task.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.types import Example
from espalier.data.formats import bedrock, columns, openai, pairs, sharegpt
from espalier.data.formats.decoded import Decoded, Row
from espalier.data.formats.shape import Format

NO_MAPPING: Mapping[str, str] = {}
ALL: tuple[Format, ...] = (
    *openai.FORMATS,
    *bedrock.FORMATS,
    *sharegpt.FORMATS,
    *columns.FORMATS,
    *pairs.FORMATS,
)
FORMATS: Mapping[str, Format] = {shape.name: shape for shape in ALL}


def find_format(name: str) -> Format:
    """The format of that name; raises InvalidInput with a hint for an unknown one."""
    if name not in FORMATS:
        raise InvalidInput(f"no format called {name!r}", hint=did_you_mean(name, FORMATS))
    return FORMATS[name]


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
    found = [shape for shape in _with_columns(tuple(row)) if shape.fits(row)]
    if len(found) < 2:
        return found
    contained = {name for shape in found for name in shape.over}
    return [shape for shape in found if shape.name not in contained]


@functools.lru_cache(maxsize=256)
def _with_columns(names: tuple[str, ...]) -> tuple[Format, ...]:
    """The formats whose needed columns are among `names`; a file's rows mostly have the same ones."""
    return tuple(shape for shape in ALL if all(shape.columns[name] in names for name in shape.needed))
