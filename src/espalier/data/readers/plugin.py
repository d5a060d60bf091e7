"""What a reader says about itself, and how the reader of a file is found. Knows no format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from espalier.core.plugins import find_plugins, load_plugin
from espalier.core.types import Document
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.source import SourceFile, suffix_of

GROUP = "espalier.readers"
ENGINES = "espalier.readers.engines"

Reader = Callable[[SourceFile], Iterator[Document]]
R = TypeVar("R", bound=Reader)


def versioned(version: int, *, trusted: bool = False, leans_on: Callable[[], str] | None = None) -> Callable[[R], R]:
    """Give a reader its version, raised whenever an outcome changes (1 without this).

    trusted: it is our own code over simple bytes, so it needs no process of its own.
    leans_on: names what its outcome also depends on, such as a program of this machine; empty where that is absent.
    """

    def mark(reader: R) -> R:
        reader.version = version  # type: ignore[attr-defined]
        reader.leans_on = leans_on  # type: ignore[attr-defined]
        reader.trusted = trusted  # type: ignore[attr-defined]
        return reader

    return mark


def known_suffixes() -> frozenset[str]:
    """Every suffix that has a reader."""
    return frozenset(find_plugins(GROUP))


def place_reader(uri: str, options: ReadOptions) -> tuple[str, str]:
    """The entry point group and name of a file's reader: by its suffix, unless the options name an engine for that."""
    suffix = suffix_of(uri)
    engine = dict(options.engines).get(suffix)
    return (ENGINES, engine) if engine else (GROUP, suffix)


def find_reader(uri: str, options: ReadOptions | None = None) -> Reader:
    """The reader of a file; raises NotFound when there is none, MissingExtra when it needs an absent package."""
    reader: Reader = load_plugin(*place_reader(uri, options or ReadOptions()))
    return reader


def reader_id(uri: str, options: ReadOptions | None = None) -> str:
    """`jsonl@2`, `pdf@3+tesseract 5.3.0 eng`: with a source's digest and the options it decides what is read."""
    name = place_reader(uri, options or ReadOptions())[1]
    reader = find_reader(uri, options)
    leans_on = getattr(reader, "leans_on", None)
    needed = leans_on() if leans_on else ""
    return f"{name}@{getattr(reader, 'version', 1)}" + (f"+{needed}" if needed else "")
