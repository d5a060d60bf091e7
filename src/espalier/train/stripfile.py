"""Many strips in one file, mapped into memory: what a dataset has become once it was laid out for a tokenizer.

The file is blocks of strips, then an index (JSON), then the index's length, its checksum and a mark. A block is
a safetensors buffer (https://huggingface.co/docs/safetensors): the columns of its strips end to end, and where each
strip ends. A column that says nothing a plain document does not (positions from 0, one segment, weight 1 ...) is left
out, so raw text costs two to four bytes a token. Nothing is read until it is asked for; pages are the system's to keep.
Knows no dataset, no tokenizer and no torch.

Legend: n strips of a block, t their tokens, r their rows, s their segments.
"""

from __future__ import annotations

import bisect
import json
import mmap
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors.numpy import save

from espalier.core.errors import DigestMismatch
from espalier.core.ids import canonical_json, digest_of
from espalier.store.disk import write_all
from espalier.tokens.pack import Int64, Strip

Columns: TypeAlias = dict[str, npt.NDArray[Any]]

BLOCK_TOKENS = 1 << 20  # a block is held in memory while it is made
BLOCK_STRIPS = 1 << 14
_MARK = b"ESPSTRP1"
_TAIL = struct.Struct("<Q16s8s")  # length of the index, its checksum, the mark
_TYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "U16": np.uint16, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "F16": np.float16, "F32": np.float32, "F64": np.float64,
}  # fmt: skip


class StripWriter:
    """Writes strips, block by block, to a descriptor that nobody else writes to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: list[Strip] = []
        self._waiting_tokens = 0
        self._blocks: list[dict[str, Any]] = []
        self._at = 0

    def add(self, strips: Iterable[Strip]) -> None:
        """The next strips."""
        for strip in strips:
            self._waiting.append(strip)
            self._waiting_tokens += len(strip)
            if self._waiting_tokens >= BLOCK_TOKENS or len(self._waiting) >= BLOCK_STRIPS:
                self._flush()

    def finish(self, note: Mapping[str, Any]) -> None:
        """Write what waits, and the index with `note` (JSON values)."""
        self._flush()
        index = canonical_json({"blocks": self._blocks, "note": dict(note)})
        write_all(self._descriptor, index + _TAIL.pack(len(index), _checksum(index), _MARK))

    def _flush(self) -> None:
        if not self._waiting:
            return
        data = save(_columns_of(self._waiting))
        write_all(self._descriptor, data)
        self._blocks.append(
            {
                "start": self._at,
                "bytes": len(data),
                "strips": len(self._waiting),
                "checksum": _checksum(data).hex(),
            }
        )
        self._at += len(data)
        self._waiting, self._waiting_tokens = [], 0


class StripFile(Sequence[Strip]):
    """The strips of a file by number.

    Raises DigestMismatch when the file is not whole: every block's checksum is taken on opening.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            size_bytes = os.fstat(stream.fileno()).st_size
            if size_bytes < _TAIL.size:
                raise _damaged(path)
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        length, checksum, mark = _TAIL.unpack(self._map[-_TAIL.size :])
        start = size_bytes - _TAIL.size - length
        if mark != _MARK or start < 0:
            raise _damaged(path)
        index = self._map[start : start + length]
        if _checksum(index) != checksum:
            raise _damaged(path)
        told = json.loads(index)
        self.note: dict[str, Any] = told["note"]
        self._blocks: list[dict[str, Any]] = told["blocks"]
        self.digest = digest_of([block["checksum"] for block in self._blocks])  # of every strip
        self._ends = list(accumulate(block["strips"] for block in self._blocks))
        self._opened: dict[int, _Block] = {}
        with memoryview(self._map) as view:
            for block in self._blocks:
                if _checksum(view[block["start"] : block["start"] + block["bytes"]]).hex() != block["checksum"]:
                    raise _damaged(path)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        """One strip; of a slice, a list. Raises IndexError."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"strip {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, at)
        return self._block(number).strip(at - (self._ends[number - 1] if number else 0))

    @cached_property
    def lengths(self) -> Int64:
        """Tokens of each strip. (n of all blocks,)"""
        parts = [np.diff(self._block(number).ends, prepend=0) for number in range(len(self._blocks))]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _block(self, number: int) -> _Block:
        if number not in self._opened:  # two threads may both make it, and make the same
            at = self._blocks[number]["start"]
            self._opened[number] = _Block(_read_columns(self._map, at))
        return self._opened[number]


class _Block:
    """One block's columns, with what was left out put back."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.ends: Int64 = columns["ends"]
        self._extras = [name for name in columns if name.startswith("extra/")]

    def strip(self, at: int) -> Strip:
        columns = self._columns
        ids = self._cut("ids", at).astype(np.int32)
        length = len(ids)
        rows = self._cut("rows", at, "row_ends") if "rows" in columns else np.arange(length, dtype=np.int32)
        if "final" in columns:
            targets = np.append(ids[1:], columns["final"][at])[rows].astype(np.int32)
        else:
            targets = self._cut("targets", at, "row_ends")
        plain = np.array([[0, length, 0, 0]] if length else [], np.int32).reshape(-1, 4)
        return Strip(
            bytes(self._cut("names", at, "name_ends")).decode(),
            ids,
            self._cut("positions", at) if "positions" in columns else np.arange(length, dtype=np.int32),
            self._cut("segments", at, "segment_ends") if "segments" in columns else plain,
            rows,
            targets,
            self._cut("weights", at, "row_ends") if "weights" in columns else np.ones(len(rows), np.float32),
            self._cut("sequences", at, "row_ends") if "sequences" in columns else np.zeros(len(rows), np.int32),
            {name.removeprefix("extra/"): self._cut(name, at, f"ends/{name}") for name in self._extras},
        )

    def _cut(self, name: str, at: int, ends_name: str = "ends") -> npt.NDArray[Any]:
        """The part of a column that is strip `at`'s. Rows end where tokens do when every token has one."""
        ends = self._columns.get(ends_name, self.ends)
        return self._columns[name][int(ends[at - 1]) if at else 0 : int(ends[at])]


def _columns_of(strips: Sequence[Strip]) -> Columns:
    """The columns of a block that say something."""
    names = [strip.id.encode() for strip in strips]
    ids = np.concatenate([strip.ids for strip in strips])
    columns: Columns = {
        "ends": _ends([len(strip) for strip in strips]),
        "ids": ids.astype(np.uint16) if len(ids) and int(ids.max()) < 1 << 16 and int(ids.min()) >= 0 else ids,
        "names": np.frombuffer(b"".join(names), np.uint8),
        "name_ends": _ends([len(name) for name in names]),
    }
    if any(not np.array_equal(strip.rows, np.arange(len(strip))) for strip in strips):
        columns["rows"] = np.concatenate([strip.rows for strip in strips])
        columns["row_ends"] = _ends([len(strip.rows) for strip in strips])
    if all(_follows(strip) for strip in strips):
        columns["final"] = np.array([strip.targets[-1] for strip in strips], np.int32)
    else:
        columns["targets"] = np.concatenate([strip.targets for strip in strips])
    if any(not np.array_equal(strip.positions, np.arange(len(strip))) for strip in strips):
        columns["positions"] = np.concatenate([strip.positions for strip in strips])
    if any(strip.segments.tolist() != [[0, len(strip), 0, 0]] for strip in strips):
        columns["segments"] = np.concatenate([strip.segments for strip in strips])
        columns["segment_ends"] = _ends([len(strip.segments) for strip in strips])
    if any((strip.weights != 1).any() for strip in strips):
        columns["weights"] = np.concatenate([strip.weights for strip in strips])
    if any(strip.sequences.any() for strip in strips):
        columns["sequences"] = np.concatenate([strip.sequences for strip in strips])
    for name in strips[0].extras:
        values = [strip.extras[name] for strip in strips]
        columns[f"extra/{name}"] = np.concatenate(values)
        columns[f"ends/extra/{name}"] = _ends([len(value) for value in values])
    return columns


def _follows(strip: Strip) -> bool:
    """Whether every target is the token after its row, and the last row is the last token's."""
    if not len(strip.rows) or strip.rows[-1] != len(strip) - 1:
        return False
    return np.array_equal(np.append(strip.ids[1:], strip.targets[-1])[strip.rows], strip.targets)


def _ends(counts: Sequence[int]) -> Int64:
    return np.cumsum(np.asarray(counts, np.int64))


def _read_columns(data: mmap.mmap, at: int) -> Columns:
    """Views of the arrays of the safetensors buffer at byte `at`."""
    (length,) = struct.unpack_from("<Q", data, at)
    begin = at + 8 + length
    columns: Columns = {}
    for name, told in json.loads(data[at + 8 : begin]).items():
        start, end = told["data_offsets"]
        kind = np.dtype(_TYPES[told["dtype"]])
        values = np.frombuffer(data, kind, (end - start) // kind.itemsize, begin + start)
        columns[name] = values.reshape(told["shape"])
    return columns


def _checksum(data: bytes | memoryview) -> bytes:
    digest: bytes = xxhash.xxh3_128_digest(data)
    return digest


def _damaged(path: Path) -> DigestMismatch:
    return DigestMismatch(f"{path.name} is damaged", where=str(path), hint="delete it: it is made again")
