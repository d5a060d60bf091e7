"""Documents and source files for the tests of the data stage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from espalier.core.types import Document, Span
from espalier.data.readers.source import SourceFile

MakeDocument = Callable[..., Document]
MakeSource = Callable[[str, bytes], SourceFile]


@pytest.fixture
def document() -> MakeDocument:
    def make(text: str, number: int = 1, **tags: str) -> Document:
        return Document(f"doc.{number}", text, Span("0" * 64, f"file-{number}.txt"), {"format": "txt", **tags})

    return make


@pytest.fixture
def source(tmp_path: Path) -> MakeSource:
    def make(name: str, data: bytes) -> SourceFile:
        path = tmp_path / name
        path.write_bytes(data)
        return SourceFile(path, name, hashlib.sha256(data).hexdigest())

    return make
