"""JSON lines: one document a row, parsed a block at a time; a bad line is reported with its number and left out.

The text is built as `rowbatch` says. Spans are offsets in bytes of the file, uncompressed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from espalier.core.errors import InvalidInput
from espalier.data.readers.findings import Findings, each_text, heal
from espalier.data.readers.lines import Block, LineSource, Watch
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.problem import Problem
from espalier.data.readers.rowbatch import Place, RowBatches, dump_row
from espalier.data.readers.source import SourceFile
from espalier.data.readers.table import TableReader, parse_object

_BOM = b"\xef\xbb\xbf"
_NUL_ESCAPE = b"\\u0000"


@dataclass(frozen=True, slots=True)
class _Odd:
    """What stands for a line that is not plainly good: its problem and, if it could be repaired, its row."""

    kind: str
    message: str
    row: dict[str, Any] | None = None


def read_jsonl(
    source: SourceFile, options: ReadOptions, watch: Watch | None = None
) -> Iterator[pa.RecordBatch | Problem]:
    """Batches of rows, and the problems; memory is bounded by a block and the longest line."""
    findings = Findings(source, options)
    batches = RowBatches(findings)
    number = 0
    with closing(LineSource(findings, watch)) as lines:
        for block in lines.blocks():
            if isinstance(block, Problem):
                number += block.kind == "long_line"
                yield block
                continue
            block = _without_blanks(block)
            yield from _build(block, number, findings, batches)
            number += len(block.lines)
            lines.rows = number


def _without_blanks(block: Block) -> Block:
    full = np.fromiter((bool(line) and not line.isspace() for line in block.lines), bool, len(block.lines))
    if full.all():
        return block
    lines = [line for line, keep in zip(block.lines, full.tolist(), strict=True) if keep]
    return Block(lines, block.numbers[full], block.starts[full], block.ends[full], block.data)


def _build(block: Block, number: int, findings: Findings, batches: RowBatches) -> Iterator[pa.RecordBatch | Problem]:
    values = _parse(block.lines)
    if _NUL_ESCAPE in block.data:
        _find_nul(block.lines, values)
    place = Place(
        np.arange(number + 1, number + 1 + len(values), dtype=np.int64), block.numbers, block.starts, block.ends
    )
    raw: list[bytes] | None = None
    if findings.options.keep_rows:
        raw = [line.rstrip() for line in block.lines] if b"\r" in block.data else block.lines
    if not set(map(type, values)) <= {dict}:
        good = np.ones(len(values), bool)
        raw = list(raw or block.lines)
        for at, value in enumerate(values):
            if isinstance(value, dict):
                continue
            odd = value if isinstance(value, _Odd) else _not_object(value)
            problem = findings.find(odd.kind, int(block.numbers[at]), odd.message)
            yield problem
            if odd.row is None or problem.action != "repair":
                good[at] = False
            else:
                values[at], raw[at] = odd.row, dump_row(odd.row)
        values = [value for value, keep in zip(values, good.tolist(), strict=True) if keep]
        raw = [line for line, keep in zip(raw, good.tolist(), strict=True) if keep]
        place = place.keep(good)
    yield from batches.build(values, place, raw)


def _parse(lines: list[bytes]) -> list[Any]:
    """The value of each line, an `_Odd` where there is something to say about it."""
    import orjson

    values: list[Any] = []
    waiting = iter(lines)
    while len(values) < len(lines):
        try:
            # On an error `extend` keeps what it has, and `waiting` stands behind the bad line.
            values.extend(map(orjson.loads, waiting))
        except orjson.JSONDecodeError:
            values.append(_parse_odd(lines[len(values)]))
    return values


def _find_nul(lines: list[bytes], values: list[Any]) -> None:
    for at, line in enumerate(lines):
        value = values[at]
        if _NUL_ESCAPE in line and isinstance(value, dict) and (whole := each_text(value, heal)) != value:
            values[at] = _Odd("null_bytes", "NUL in a value", whole)


def _parse_odd(line: bytes) -> Any:
    """What can be made of a line that is not plainly JSON."""
    kind = message = ""
    if line.startswith(_BOM):
        kind, message, line = "bom", "a byte order mark inside the file", line.removeprefix(_BOM)
    if b"\x00" in line:
        kind, message, line = "null_bytes", "NUL between the characters", line.replace(b"\x00", b"")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        kind, message = "invalid_utf8", f"{error.reason} at byte {error.start + 1} of the line"
        text = line.decode("utf-8", "replace")
    try:
        row = parse_object(text)
    except InvalidInput as error:
        wrong = "not_object" if error.message.startswith("a JSON object") else "broken_line"
        return _Odd(wrong, error.message)
    whole = each_text(row, heal)
    if whole != row and not kind:
        kind, message = "invalid_utf8", "half a surrogate pair in a value"
    return _Odd(kind, message, whole) if kind else whole


def _not_object(value: Any) -> _Odd:
    return _Odd("not_object", f"a JSON object is wanted, not {type(value).__name__}")


JSONL = TableReader(read_jsonl, version=2)
