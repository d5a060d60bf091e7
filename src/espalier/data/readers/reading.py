"""Reads all sources of a dataset: each file by the reader of its suffix; what cannot be read is reported, never lost.

Knows the plug-in group `espalier.readers`. Does not know any format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from espalier.core.errors import EspalierError, InvalidInput, MissingExtra
from espalier.core.events import Emit, Event, ignore
from espalier.core.plugins import find_plugins, load_plugin
from espalier.core.types import Document
from espalier.data.readers.source import SkippedFile, SourceFile, suffix_of

Reader = Callable[[SourceFile], Iterator[Document]]
OnError = Literal["skip", "fail"]
GROUP = "espalier.readers"


@dataclass(slots=True)
class Reading:
    """What was read: documents (some dropped with "unreadable: ..."), and the files that gave none."""

    documents: list[Document] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)


def find_reader(uri: str) -> Reader:
    """The reader of a file's suffix; raises NotFound when there is none."""
    reader: Reader = load_plugin(GROUP, suffix_of(uri))
    return reader


def known_suffixes() -> frozenset[str]:
    """Every suffix that has a reader."""
    return frozenset(find_plugins(GROUP))


def read_sources(sources: Sequence[SourceFile], *, on_error: OnError = "skip", emit: Emit = ignore) -> Reading:
    """Read every source in order.

    With `on_error="skip"` an unreadable file goes to `skipped` and an unreadable line becomes a dropped document;
    with "fail" the first of either raises InvalidInput, its `where` naming the file (and the line).
    """
    reading = Reading()
    for done, source in enumerate(sources, 1):
        documents, reason = read_file(source)
        for document in documents:
            if document.dropped_because and on_error == "fail":
                raise InvalidInput(document.dropped_because, hint="mend it, or set `source.on_error: skip`")
        if reason:
            if on_error == "fail":
                raise InvalidInput(reason, where=source.uri, hint="mend it, or set `source.on_error: skip`")
            reading.skipped.append(SkippedFile(uri=source.uri, reason=reason, sha256=source.sha256))
        reading.documents += documents
        if done % 50 == 0 or done == len(sources):
            emit(Event("data.read", {"files": done, "of_files": len(sources), "documents": len(reading.documents)}))
    return reading


def read_file(source: SourceFile) -> tuple[list[Document], str]:
    """One file's documents, and the reason when it (or the rest of it) could not be read.

    A reader is a boundary: it parses hostile bytes through foreign code, so any exception but a missing package or
    an exhausted machine means "this file is unreadable".
    """
    reader = find_reader(source.uri)
    documents: list[Document] = []
    try:
        documents.extend(tag_format(reader(source), suffix_of(source.uri)))
    except (MissingExtra, MemoryError):
        raise
    except EspalierError as error:
        return documents, f"unreadable: {error.message}"
    except Exception as error:  # noqa: BLE001 - see the docstring
        return documents, f"unreadable: {type(error).__name__}: {error}"[:300]
    return documents, "" if documents else "unreadable: no text in it"


def tag_format(documents: Iterable[Document], suffix: str) -> Iterator[Document]:
    """The documents, each tagged with the format it was read from."""
    for document in documents:
        document.tags.setdefault("format", suffix)
        yield document
