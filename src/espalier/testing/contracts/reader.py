"""What every reader of a file format promises. Subclass `ReaderContract` in a test module and give it two fixtures:

class TestMyReader(ReaderContract):
    @pytest.fixture
    def read(self): ...              # the reader: read(source) -> Iterator[Document]
    @pytest.fixture
    def sample(self): ...            # (file name, bytes) of a good file that holds the word "Wombat"
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from espalier.core.types import Document
from espalier.data.readers.plugin import Reader
from espalier.data.readers.source import SourceFile

Sample = tuple[str, bytes]


class ReaderContract:
    """A file gives documents that lead back to it, or an error, and never anything else."""

    def test_the_text_is_read(self, read: Reader, sample: Sample, tmp_path: Path) -> None:
        documents = _read(read, sample, tmp_path)
        assert any("Wombat" in document.text for document in documents)
        assert all(document.text.strip() or document.dropped_because for document in documents)

    def test_every_document_leads_back_to_the_file(self, read: Reader, sample: Sample, tmp_path: Path) -> None:
        name, data = sample
        for document in _read(read, sample, tmp_path):
            assert {span.uri.split("!/")[0] for span in document.spans} == {name}  # name!/part of it
            assert {span.blob for span in document.spans} == {hashlib.sha256(data).hexdigest()}
            assert all(span.page >= 1 and 0 <= span.start <= span.end for span in document.spans)

    def test_ids_differ_and_stay_the_same(self, read: Reader, sample: Sample, tmp_path: Path) -> None:
        ids = [document.id for document in _read(read, sample, tmp_path)]
        assert len(set(ids)) == len(ids)
        assert _read(read, sample, tmp_path) == _read(read, sample, tmp_path)

    def test_tags_are_short_texts(self, read: Reader, sample: Sample, tmp_path: Path) -> None:
        for document in _read(read, sample, tmp_path):
            assert all(isinstance(value, str) and value for value in document.tags.values())

    @pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
    def test_a_torn_file_gives_documents_or_an_error(
        self, read: Reader, sample: Sample, tmp_path: Path, keep: float
    ) -> None:
        name, data = sample
        try:
            documents = _read(read, (name, data[: int(keep * len(data))]), tmp_path)
        except Exception:  # noqa: BLE001 - any error means "unreadable" to the caller
            return
        assert all(isinstance(document, Document) for document in documents)

    def test_the_file_is_left_as_it_was(self, read: Reader, sample: Sample, tmp_path: Path) -> None:
        _read(read, sample, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [sample[0]]
        assert (tmp_path / sample[0]).read_bytes() == sample[1]


def _read(read: Reader, sample: Sample, folder: Path) -> list[Document]:
    name, data = sample
    path = folder / name
    path.write_bytes(data)
    return list(read(SourceFile(path, name, hashlib.sha256(data).hexdigest())))
