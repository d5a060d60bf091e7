"""Parquet files written batch by batch in row groups that follow from the rows alone, however they come.

A group is what a reader holds at once, so it ends by rows or by bytes. Knows no meaning of a column but for those
whose values repeat.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from espalier.store.disk import new_file

ROWS_IN_GROUP = 4096
BYTES_IN_GROUP = 64 << 20


@contextmanager
def open_writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """A function that writes batches to the Parquet file `path`; the file is there, whole, once the block is left.

    How rows are given in batches does not show in the bytes. Raises StorageFull, PermissionDenied.
    """
    with (
        new_file(path) as descriptor,
        os.fdopen(os.dup(descriptor), "wb") as stream,
        pq.ParquetWriter(stream, schema, compression="zstd", write_page_index=True, **_encode(schema)) as writer,
    ):
        groups = _Groups(schema, writer)
        yield groups.add
        groups.flush()


class _Groups:
    """Gathers rows until a group is full."""

    def __init__(self, schema: pa.Schema, writer: pq.ParquetWriter) -> None:
        self._schema, self._writer = schema, writer
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """The next rows. The last row of a group may go beyond its bytes."""
        ends = np.cumsum(measure_rows(batch))
        start = 0
        while start < len(batch):
            before = int(ends[start - 1]) if start else 0
            by_bytes = int(np.searchsorted(ends, before + BYTES_IN_GROUP - self._bytes)) + 1
            end = min(len(batch), by_bytes, start + ROWS_IN_GROUP - self._rows)
            self._waiting.append(batch.slice(start, end - start))
            self._rows += end - start
            self._bytes += int(ends[end - 1]) - before
            if self._rows == ROWS_IN_GROUP or self._bytes >= BYTES_IN_GROUP:
                self.flush()
            start = end

    def flush(self) -> None:
        """Write what waits as one group."""
        if self._rows:
            table = pa.Table.from_batches(self._waiting, self._schema).combine_chunks()
            self._writer.write_table(table, row_group_size=self._rows)
        self._waiting = []
        self._rows = self._bytes = 0


def measure_rows(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """About how many bytes each row takes in memory; a number of its values alone. (n,)"""
    return sum((_measure(column) for column in batch.columns), np.zeros(len(batch), np.int64))


def _measure(array: pa.Array) -> NDArray[np.int64]:
    kind = array.type
    if pa.types.is_struct(kind):
        fields = (_measure(array.field(number)) for number in range(kind.num_fields))
        return sum(fields, np.zeros(len(array), np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        offsets = np.asarray(array.offsets).astype(np.int64)
        first, last = int(offsets[0]), int(offsets[-1])
        children = [array.keys, array.items] if pa.types.is_map(kind) else [array.values]
        sizes = sum(
            (_measure(child.slice(first, last - first)) for child in children), np.zeros(last - first, np.int64)
        )
        totals = np.concatenate([[0], np.cumsum(sizes)])[offsets - first]
        return np.diff(totals) + 4
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        lengths: NDArray[np.int64] = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
        return lengths.astype(np.int64) + 4
    return np.full(len(array), 8, np.int64)


def _encode(schema: pa.Schema) -> dict[str, Any]:
    """Dictionaries only where values repeat: to try one on every text and id costs a third of the writing."""
    repeating = ["split", "tags.key_value.key", "tags.key_value.value"]
    repeating += [f"{name}.list.element.role" for name in ("messages", "chosen", "rejected")]
    ids = {"input_ids.list.element": "BYTE_STREAM_SPLIT"} if "input_ids" in schema.names else None
    return {"use_dictionary": repeating, "column_encoding": ids}
