"""Parquet: one document a row, a few thousand rows at a time; built as `rowbatch` says. A row's `line` is its number.

Columns of raw bytes (pictures, sound) are left out. Does not know nested tables: a list or struct is JSON in its row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from espalier.core.errors import InvalidInput
from espalier.data.readers.findings import Findings
from espalier.data.readers.lines import Watch
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.problem import Problem
from espalier.data.readers.rowbatch import Place, RowBatches
from espalier.data.readers.source import SourceFile
from espalier.data.readers.table import TableReader

MAX_GROUP_BYTES = 4 << 30  # of a row group, uncompressed: its column chunks are held while its rows are read
_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1 << 14


def read_parquet(
    source: SourceFile, options: ReadOptions, watch: Watch | None = None
) -> Iterator[pa.RecordBatch | Problem]:
    """Batches of rows; raises InvalidInput where a row group is larger than MAX_GROUP_BYTES."""
    from pyarrow import parquet

    size_bytes = source.path.stat().st_size
    content = pa.BufferReader(source.read_bytes()) if source.packing else pa.memory_map(str(source.path))
    with content, parquet.ParquetFile(content, buffer_size=1 << 20) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        group_bytes = max((group.total_byte_size for group in groups), default=0)
        if group_bytes > MAX_GROUP_BYTES:
            raise InvalidInput(f"a row group of {group_bytes} bytes, more than {MAX_GROUP_BYTES}")
        columns = [item.name for item in file.schema_arrow if not _is_bytes(item.type)]
        total = max(1, file.metadata.num_rows)
        row_bytes = max(1, sum(group.total_byte_size for group in groups) // total)
        size = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
        batches, done = RowBatches(Findings(source, options)), 0
        for part in file.iter_batches(batch_size=size, columns=columns):
            numbers = np.arange(done + 1, done + 1 + part.num_rows, dtype=np.int64)
            done += part.num_rows
            zeros = np.zeros(part.num_rows, np.int64)
            yield from batches.build(part.to_pylist(), Place(numbers, numbers, zeros, zeros))
            if watch:
                watch(size_bytes * done // total, size_bytes, done)


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_is_bytes(item.type) for item in kind)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


PARQUET = TableReader(read_parquet, version=1)
