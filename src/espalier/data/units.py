"""What splitting must know of each example: its group, its source document and its stratum, as names and as hashes.

Legend: n = rows of a batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from espalier.data.answers import read_fields
from espalier.data.dedup.words import Words, hash_texts
from espalier.data.division import hash_key

GROUP = "group"
# A length's stratum is the first of these it does not exceed, in characters.
_LENGTHS = (250, 1_000, 4_000, 16_000, 64_000)
# The row of a table has the line it begins on; other documents of one file belong together.
_LINE = "line"
# What comes of one document is numbered below it: readers.source.SourceFile.document_id, then .1, .2 ...
_CHILD = re.compile(r"([0-9a-f]{16}\.[0-9]+)\.")


def sketch_units(
    examples: pa.RecordBatch,
    documents: pa.RecordBatch,
    words: Sequence[Words] | None = None,
    stratify_by: Sequence[str] = (),
    group_by: str = "",
    salt: str = "",
) -> pa.RecordBatch:
    """Columns `key`, `document`, `stratum` (uint64: see `division.Units`), and the names `group` and `stratum_name`.

    examples: of `store.examples.SCHEMA` (n,). documents: of `flow.batch.SCHEMA`, row for row. words: of their texts, if
    at hand.
    """
    sources = name_documents(documents)
    groups = name_groups(examples.column("tags"), documents.column("text"), words, sources, group_by)
    strata = name_strata(examples, documents, stratify_by)
    columns = {
        "key": pa.array([hash_key(group, salt) for group in groups], pa.uint64()),
        "document": pa.array(_hash(sources)),
        "stratum": pa.array(_hash(strata) if stratify_by else np.zeros(len(groups), np.uint64)),
        GROUP: pa.array(groups, pa.string()),
        "stratum_name": pa.array(strata, pa.string()),
    }
    return pa.RecordBatch.from_pydict(columns)


def name_groups(
    tags: pa.MapArray,
    texts: pa.LargeStringArray,
    words: Sequence[Words] | None,
    sources: Sequence[str],
    group_by: str = "",
) -> list[str]:
    """The group of each row (n,): its tag `group_by`, else the tag `group` a task has set, else the hash of its text.

    Rows that came of one source document are named after the first of them, not after the document: a file's digest
    changes with every row that is added to it, and a text does not.
    """
    named = read_tag(tags, GROUP).to_pylist()
    if group_by:
        named = [own or other for own, other in zip(read_tag(tags, group_by).to_pylist(), named, strict=True)]
    first: dict[str, int] = {}
    leaders = [first.setdefault(source, row) for row, source in enumerate(sources)]
    if words is not None:
        hashes = dict(enumerate(hash_texts(texts, words)))
    else:
        leading = sorted(set(leaders))
        hashes = dict(zip(leading, hash_texts(texts.take(pa.array(leading, pa.int64()))), strict=True))
    return [name or f"text-{hashes[leader]:016x}" for name, leader in zip(named, leaders, strict=True)]


def name_documents(documents: pa.RecordBatch) -> list[str]:
    """The source document of each row (n,): of a table its row, else the file. Chunks have that of what they are of."""
    rows = read_tag(documents.column("tags"), _LINE).is_valid().to_pylist()
    names = []
    for of_table, name, spans in zip(
        rows, documents.column("id").to_pylist(), documents.column("spans").to_pylist(), strict=True
    ):
        blob = spans[0]["blob"] if spans and not of_table else ""
        child = _CHILD.match(name)
        names.append(blob or (child[1] if child else name))
    return names


def name_strata(examples: pa.RecordBatch, documents: pa.RecordBatch, stratify_by: Sequence[str]) -> list[str]:
    """The stratum of each row (n,): the values it is stratified by, joined by |."""
    parts = [_name_parts(examples, documents, name) for name in stratify_by]
    return ["|".join(values) for values in zip(*parts, strict=True)] if parts else [""] * len(examples)


def read_tag(tags: pa.MapArray, name: str) -> pa.StringArray:
    """The value of one tag for each row, null where a row has none. (n,)"""
    offsets = np.asarray(tags.offsets)
    keys, items = tags.keys, tags.items  # of the whole buffer, to which the offsets speak
    places = np.flatnonzero(pc.equal(keys, name).to_numpy(zero_copy_only=False))
    places = places[(places >= offsets[0]) & (places < offsets[-1])]
    found = np.full(len(tags), -1, np.int64)
    found[np.searchsorted(offsets, places, side="right") - 1] = places
    return items.take(pa.array(found, mask=found < 0)).cast(pa.string())


def _name_parts(examples: pa.RecordBatch, documents: pa.RecordBatch, name: str) -> list[str]:
    if name.startswith("label:"):
        field = name.removeprefix("label:")
        return [read_fields(answer).get(field, "") for answer in _read_answers(examples)]
    if name == "source":
        return [_folder_of(spans[0]["uri"]) if spans else "" for spans in documents.column("spans").to_pylist()]
    if name == "length":
        chars = pc.utf8_length(documents.column("text")).to_numpy()
        names = [*(f"<={limit}" for limit in _LENGTHS), f">{_LENGTHS[-1]}"]
        return [names[place] for place in np.searchsorted(_LENGTHS, chars).tolist()]
    return [value or "" for value in read_tag(examples.column("tags"), name).to_pylist()]


def _read_answers(examples: pa.RecordBatch) -> list[str]:
    """The last turn of each example, empty for one without turns. (n,)"""
    turns = examples.column("messages").to_pylist()
    return [messages[-1]["content"] if messages else "" for messages in turns]


def _folder_of(uri: str) -> str:
    return uri.rpartition("/")[0]


def _hash(names: Sequence[str]) -> NDArray[np.uint64]:
    return np.fromiter((xxhash.xxh3_64_intdigest(name.encode()) for name in names), np.uint64, len(names))
