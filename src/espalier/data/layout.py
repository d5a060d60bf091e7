"""How a dataset version lies on disk, and how it is read back.

manifest.json                    DatasetManifest; written last, so a folder with a manifest is complete
card.md                          the same for people
data/train-00000.parquet ...     examples (espalier.store.examples), several files a split when there are many
documents-00000.parquet ...      the kept documents: text, spans to files and pages, tags, group, split
exclusions.parquet               every document, row and file that was left out: where it stands, at which step, why,
                                 and its text as it was then
problems.jsonl                   what was wrong with the sources, by file and line, and what was done about it
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from espalier.core.errors import NotFound
from espalier.core.types import Document, Span
from espalier.core.types.examples import Split
from espalier.data.card import write_card
from espalier.data.flow.batch import SPAN, TAGS, set_tags, tag_column
from espalier.data.flow.files import BatchFile
from espalier.data.flow.record import DROPPED
from espalier.data.flow.shard import load_shard
from espalier.data.flow.spread import Spread
from espalier.data.harvest import Harvest
from espalier.data.manifest import FILE, DatasetManifest
from espalier.store.disk import new_file, remove_unfinished, write_file
from espalier.store.examples import SCHEMA, SPLITS, example_files
from espalier.store.rowgroups import open_writer

EXCLUSIONS = "exclusions.parquet"
PROBLEMS = "problems.jsonl"
LEFT_OUT = 255  # of a row that splitting or the leak gate left out
FILE_BYTES = 256 << 20  # text of one file of documents, about
_ROWS_AT_ONCE = 1024
_DOCUMENTS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.large_string()),  # null: the same as the example's
        pa.field("spans", pa.list_(SPAN), nullable=False),
        pa.field("tags", TAGS, nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A shard's examples with what splitting said of each row."""

    harvest: Harvest
    splits: npt.NDArray[np.uint8]  # (n,) index into store.examples.SPLITS, or LEFT_OUT
    groups: pa.StringArray  # (n,)


@dataclass(frozen=True, slots=True)
class WriteTask:
    """Shards that share one file of each kind."""

    number: int
    placed: tuple[Placed, ...]
    folder: str


def write_rows(spread: Spread, placed: Sequence[Placed], folder: Path) -> None:
    """Write examples and documents; which rows share a file follows from the rows alone.

    What a build killed at this left half-written goes: it would be taken for a part of the version.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for place in (folder, folder / "data"):
        remove_unfinished(place)
    tasks = (WriteTask(number, group, str(folder)) for number, group in enumerate(_group(placed)))
    for _ in spread(write_part, tasks):
        pass


def _group(placed: Sequence[Placed]) -> Iterator[tuple[Placed, ...]]:
    held: list[Placed] = []
    text_bytes = 0
    for item in placed:
        held.append(item)
        text_bytes += sum(part.text_bytes for part in item.harvest.shard.parts)
        if text_bytes >= FILE_BYTES:
            yield tuple(held)
            held, text_bytes = [], 0
    if held:
        yield tuple(held)


def write_part(task: WriteTask) -> None:
    """One file of each kind; of a split without rows only the first is written."""
    folder = Path(task.folder)
    for index, split in enumerate(SPLITS):
        if task.number and not any((item.splits == index).any() for item in task.placed):
            continue
        first = task.placed[0].harvest.load().schema
        with open_writer(folder / "data" / f"{split}-{task.number:05d}.parquet", first) as write:
            for item in task.placed:
                write(_choose_examples(item, index, split))
    with open_writer(folder / f"documents-{task.number:05d}.parquet", _DOCUMENTS) as write:
        for item in task.placed:
            write(_describe_documents(item))


def _choose_examples(item: Placed, index: int, split: str) -> pa.RecordBatch:
    mask = pa.array(item.splits == index)
    batch = item.harvest.load().filter(mask)
    batch = set_tags(batch, {"group": item.groups.filter(mask)})
    at = SCHEMA.get_field_index("split")
    return batch.set_column(at, SCHEMA.field("split"), pa.array([split] * len(batch), pa.string()))


def _describe_documents(item: Placed) -> pa.RecordBatch:
    kept = pa.array(item.splits != LEFT_OUT)
    rows, examples = load_shard(item.harvest.shard).filter(kept), item.harvest.load().filter(kept)
    texts = rows.column("text")
    same = pc.equal(texts, examples.column("text").cast(pa.large_string()))
    names = pa.array(SPLITS).take(pa.array(item.splits).filter(kept))
    columns = [
        rows.column("id"),
        pc.if_else(same, pa.scalar(None, pa.large_string()), texts),
        rows.column("spans"),
        rows.column("tags"),
        item.groups.filter(kept),
        names,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_DOCUMENTS)


def write_exclusions(folder: Path, unread: Iterable[dict[str, Any]], dropped: Sequence[str]) -> int:
    """Write what was left out: first what could not be read, then a step's drops after another's; returns how many."""
    count = 0
    with open_writer(folder / EXCLUSIONS, DROPPED) as write:
        rows = iter(unread)
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            write(pa.RecordBatch.from_pylist(some, DROPPED))
            count += len(some)
        for path in dropped:
            batch = BatchFile(Path(path))[0]
            write(batch)
            count += len(batch)
    return count


def read_exclusions(folder: Path) -> Iterator[dict[str, Any]]:
    """What was left out, row by row: id, uri, blob, page, start, end, step, reason, text. Raises NotFound."""
    path = folder / EXCLUSIONS
    if not path.is_file():
        raise NotFound(f"no exclusions in {folder}", hint=f"a built dataset's folder holds {EXCLUSIONS}")
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches():
            yield from batch.to_pylist()


def read_documents(folder: Path, ids: Iterable[str] | None = None) -> Iterator[Document]:
    """The kept documents of a dataset version, all or those asked for: from an example's `documents` to file and page.

    Raises NotFound when the folder holds no dataset.
    """
    paths = sorted(folder.glob("documents*.parquet"))
    if not paths:
        raise NotFound(f"no documents in {folder}", hint="a built dataset's folder holds documents-00000.parquet")
    wanted = None if ids is None else list(ids)
    for path in paths:
        table = pq.read_table(path, filters=None if wanted is None else [("id", "in", wanted)])
        missing = [f"ex_{row['id']}" for row in table.select(["id", "text"]).to_pylist() if row["text"] is None]
        texts = _read_texts(folder, path.stem.rpartition("-")[2], missing) if missing else {}
        for row in table.to_pylist():
            first, *rest = [Span(**span) for span in row["spans"]]
            text = texts[f"ex_{row['id']}"] if row["text"] is None else row["text"]
            yield Document(row["id"], text, first, dict(row["tags"]), continued=tuple(rest))


def _read_texts(folder: Path, number: str, examples: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for split in SPLITS:
        path = folder / "data" / f"{split}-{number}.parquet"
        if path.is_file():
            table = pq.read_table(path, columns=["id", "text"], filters=[("id", "in", examples)])
            found.update(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return found


def read_assignments(folder: Path) -> dict[str, Split]:
    """group -> split of a dataset version: what the next version is given as `previous`."""
    found: dict[str, Split] = {}
    for path in example_files(folder):
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(columns=["tags", "split"]):
                groups, splits = tag_column(batch, "group").to_pylist(), batch.column("split").to_pylist()
                found.update((group, split) for group, split in zip(groups, splits, strict=True) if group is not None)
    return found


def write_problems(folder: Path, problems: Iterable[dict[str, Any]]) -> None:
    """One line a problem; no file when there was none."""
    lines = (json.dumps(problem, ensure_ascii=False, sort_keys=True) + "\n" for problem in problems)
    first = next(lines, None)
    if first is None:
        return
    with new_file(folder / PROBLEMS) as descriptor, os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as stream:
        stream.write(first)
        stream.writelines(lines)


def write_manifest(folder: Path, manifest: DatasetManifest) -> None:
    """The card, then the manifest: with it the version is complete."""
    write_file(folder / "card.md", write_card(manifest).encode())
    write_file(folder / FILE, manifest.to_bytes())
