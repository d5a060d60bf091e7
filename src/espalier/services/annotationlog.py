"""The log of annotations in the store: by dataset version, one immutable record each.

What pages and operations share; `services/annotations.py` holds the operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from espalier.core.errors import NotFound
from espalier.services.catalogue import DatasetVersion

if TYPE_CHECKING:
    from espalier.data.annotation.record import AnnotationRecord
    from espalier.services.context import Context

_MOST_RECORDS = 1_000_000


def load_records(context: Context, dataset: str) -> list[AnnotationRecord]:
    """Every record on a version (artifact digest), the first said first."""
    from espalier.data.annotation.record import AnnotationRecord

    found = context.store.records.list(_kind(dataset), AnnotationRecord, limit=_MOST_RECORDS)
    return list(reversed(found))


def save_record(context: Context, record: AnnotationRecord) -> None:
    """Keep one record, which somebody just said."""
    context.store.records.put(_kind(record.dataset), record.id, record)


def save_records(context: Context, records: Sequence[AnnotationRecord], dataset: str = "") -> int:
    """Keep what is new of `records`; returns how many that were. `dataset`: file them under this version."""
    from espalier.data.annotation.record import find_news

    new = 0
    for digest in {dataset or record.dataset for record in records}:
        mine = [record for record in records if (dataset or record.dataset) == digest]
        with context.store.transaction():
            news = find_news(load_records(context, digest), mine)
            for record in news:
                context.store.records.put(_kind(digest), record.id, record)
        new += len(news)
    return new


def snapshot(context: Context, version: DatasetVersion) -> str:
    """What was said of a version until now, as an artifact; the same words are the same artifact. Raises NotFound."""
    from espalier.data.annotation.record import FILE, append_records, keep_newest

    records = keep_newest(load_records(context, version.digest))
    if not records:
        raise NotFound(f"nobody has annotated {version.ref}", hint="`espalier annotations import`, or annotate it")
    with TemporaryDirectory() as folder:
        append_records(Path(folder) / FILE, records)
        artifact = context.store.artifacts.put("annotations", Path(folder), {"dataset": version.digest})
    return artifact.digest


def example_ids(context: Context, version: DatasetVersion) -> set[str]:
    """The ids of a version's examples, of every split; no other column is read."""
    import pyarrow.parquet as pq

    from espalier.store.examples import example_files

    files = example_files(context.store.artifacts.materialise(version.digest))
    return {id for file in files for id in pq.read_table(file, columns=["id"])["id"].to_pylist()}


def _kind(dataset: str) -> str:
    return f"annotation:{dataset}"
