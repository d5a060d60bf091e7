"""Source files for the tests of the readers."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from espalier.data.readers.source import SourceFile

MakeSource = Callable[[str, bytes], SourceFile]
Pack = Callable[[Mapping[str, str]], bytes]


@pytest.fixture
def source(tmp_path: Path) -> MakeSource:
    def make(name: str, data: bytes) -> SourceFile:
        path = tmp_path / name
        path.write_bytes(data)
        return SourceFile(path, name, hashlib.sha256(data).hexdigest())

    return make


@pytest.fixture
def pack() -> Pack:
    """A zip of texts by member name."""

    def make(members: Mapping[str, str]) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as package:
            for name, text in members.items():
                package.writestr(name, text)
        return stream.getvalue()

    return make
