"""What a reader of tables is: record batches and problems rather than documents, in memory that no file's size moves.

Knows no format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.flow.batch import to_documents
from espalier.data.readers.lines import Watch
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.problem import Problem
from espalier.data.readers.source import SourceFile

TableStream = Iterator[pa.RecordBatch | Problem]


@dataclass(frozen=True, slots=True)
class TableReader:
    """`read(source, options, watch)`. It is our own code over simple bytes, so it runs where it is called.

    A call with the source alone gives its rows as documents, with the default options.
    """

    read: Callable[[SourceFile, ReadOptions, Watch | None], TableStream]
    version: int  # raised whenever an outcome changes

    def __call__(self, source: SourceFile) -> Iterator[Document]:
        for item in self.read(source, ReadOptions(), None):
            if isinstance(item, pa.RecordBatch):
                yield from to_documents(item)


def parse_object(line: str) -> dict[str, Any]:
    """One line of JSON lines; raises InvalidInput unless it is a JSON object."""
    try:
        value = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" starting at")
        raise InvalidInput(f"not JSON: {what} at column {error.colno}") from None
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}"[:200]) from None
    except RecursionError:
        raise InvalidInput("not JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"a JSON object is wanted, not {type(value).__name__}")
    return value
