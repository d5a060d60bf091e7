"""Reads sources: each by the reader of its suffix, foreign formats in a process apart; what is wrong is reported.

One unreadable file is a `Problem`, never the end. Does not know any format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa

from espalier.core.errors import EspalierError, MissingExtra, Unavailable
from espalier.core.types import Document
from espalier.data.flow.batch import to_batch, to_documents
from espalier.data.readers.lines import Watch
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.plugin import find_reader
from espalier.data.readers.problem import Problem
from espalier.data.readers.sandbox import read_apart
from espalier.data.readers.source import SourceFile, suffix_of
from espalier.data.readers.table import TableReader

_DEFAULTS = ReadOptions()
MAX_TOLD = 10_000  # problems of a kind in one source; a file that is bad throughout is no list of its lines


def read_source(
    source: SourceFile, options: ReadOptions = _DEFAULTS, watch: Watch | None = None
) -> Iterator[pa.RecordBatch | Problem]:
    """What one source gives: batches of `flow.batch.SCHEMA` in order, and its problems as they are met.

    A problem whose action is "refuse" is the last item: the caller raises its `to_error()`. A reader parses hostile
    bytes, so any exception but a missing package means that the file is unreadable. `watch` is told the progress of a
    table.
    """
    more: dict[tuple[str, str], Problem] = {}
    told: Counter[tuple[str, str]] = Counter()
    for item in _attempt(source, options, watch):
        if isinstance(item, Problem):
            key = (item.kind, item.action)
            told[key] += 1
            if told[key] > MAX_TOLD:
                more[key] = _fold(more.get(key), item)
                continue
        yield item
        if isinstance(item, Problem) and item.action == "refuse":
            return
    yield from more.values()


def _attempt(source: SourceFile, options: ReadOptions, watch: Watch | None) -> Iterator[pa.RecordBatch | Problem]:
    """What the reader gives, and a problem where it raises or gives nothing."""
    found = False
    try:
        for item in _read(source, options, watch):
            found |= not isinstance(item, Problem) or item.action != "repair"
            yield item
    except MissingExtra:
        raise
    except EspalierError as error:
        problem = _unreadable(source, options, error.message)
        yield replace(problem, transient=isinstance(error, Unavailable))
    except MemoryError:
        yield _unreadable(source, options, "reading it takes more memory than there is")
    except Exception as error:  # noqa: BLE001 - a reader parses hostile bytes: whatever it raises, the file is bad
        yield _unreadable(source, options, f"{type(error).__name__}: {error}"[:300])
    else:
        if not found:
            yield _unreadable(source, options, "no text in it")


def _read(source: SourceFile, options: ReadOptions, watch: Watch | None) -> Iterator[pa.RecordBatch | Problem]:
    reader = find_reader(source.uri, options)
    if isinstance(reader, TableReader):
        yield from reader.read(source, options, watch)
    elif options.sandbox and not getattr(reader, "trusted", False):
        yield from read_apart(source, options)
    else:
        documents = list(tag_format(reader(source), suffix_of(source.uri)))
        if source.licence:
            for document in documents:
                document.tags.setdefault("licence", source.licence)
        if documents:
            yield to_batch(documents)


def _fold(known: Problem | None, problem: Problem) -> Problem:
    """One problem for the many of a kind that are not told one by one, at the first of their lines."""
    if known is None:
        return replace(problem, message=f"and from here on more like it: {problem.message}")
    return replace(known, rows=known.rows + problem.rows)


def _unreadable(source: SourceFile, options: ReadOptions, message: str) -> Problem:
    return Problem("unreadable", source.uri, 0, message, options.problems["unreadable"])


def read_file(source: SourceFile, options: ReadOptions = _DEFAULTS) -> tuple[list[Document], str]:
    """One file's documents, and the reason when it (or the rest of it) could not be read.

    A row that was left out comes as a dropped document, its reason naming the line.
    """
    documents: list[Document] = []
    reason = ""
    for item in read_source(source, options):
        if isinstance(item, pa.RecordBatch):
            documents += to_documents(item)
        elif item.kind == "unreadable":
            reason = f"unreadable: {item.message}"
        elif item.action != "repair":
            name = f"{source.sha256[:16]}.{item.kind}.{item.line}"
            why = f"unreadable: {item.where}: {item.message}"
            documents.append(Document(name, "", source.span(), {"format": suffix_of(source.uri)}, why))
    return documents, reason


def tag_format(documents: Iterable[Document], suffix: str) -> Iterator[Document]:
    """The documents, each tagged with the format it was read from."""
    for document in documents:
        document.tags.setdefault("format", suffix)
        yield document
