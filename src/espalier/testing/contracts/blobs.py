"""What every `Blobs` promises. Subclass `BlobsContract` in a test module and give it two fixtures:

class TestMyBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self): ...             # an empty store
    @pytest.fixture
    def damage(self): ...            # damage(sha256): change the stored bytes behind the store's back
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound
from espalier.core.ports import Blobs

Damage = Callable[[str], None]

_DATA = b"a page of a document\n" * 3


class BlobsContract:
    """Bytes in, the same bytes out, or an error that says so."""

    def test_bytes_come_back_as_they_were_put(self, blobs: Blobs) -> None:
        sha256, size_bytes = blobs.put(io.BytesIO(_DATA))
        assert (sha256, size_bytes) == (hashlib.sha256(_DATA).hexdigest(), len(_DATA))
        assert blobs.read(sha256) == _DATA

    @pytest.mark.parametrize("size_bytes", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
    def test_every_size_around_the_chunk_is_whole(self, blobs: Blobs, size_bytes: int) -> None:
        data = bytes(index % 251 for index in range(size_bytes))
        sha256, stored_bytes = blobs.put(io.BytesIO(data))
        assert stored_bytes == size_bytes
        assert blobs.read(sha256) == data

    def test_a_file_and_a_stream_of_the_same_bytes_are_one_blob(self, blobs: Blobs, tmp_path: Path) -> None:
        path = tmp_path / "page.txt"
        path.write_bytes(_DATA)
        assert blobs.put_file(path) == blobs.put(io.BytesIO(_DATA)) == blobs.put_file(path)

    def test_a_blob_is_there_once_it_was_put(self, blobs: Blobs) -> None:
        sha256 = hashlib.sha256(_DATA).hexdigest()
        assert not blobs.has(sha256)
        blobs.put(io.BytesIO(_DATA))
        assert blobs.has(sha256)

    def test_fetch_writes_the_file_and_replaces_one_that_stands_there(self, blobs: Blobs, tmp_path: Path) -> None:
        sha256, _ = blobs.put(io.BytesIO(_DATA))
        target = tmp_path / "copy.txt"
        target.write_bytes(b"old")
        blobs.fetch(sha256, target)
        assert target.read_bytes() == _DATA
        assert not target.stat().st_mode & 0o222
        assert [path.name for path in tmp_path.iterdir()] == ["copy.txt"]

    def test_an_unknown_digest_is_not_found(self, blobs: Blobs, tmp_path: Path) -> None:
        absent = "0" * 64
        with pytest.raises(NotFound):
            blobs.read(absent)
        with pytest.raises(NotFound):
            blobs.fetch(absent, tmp_path / "x")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("digest", ["", "abc", "../../../../etc/passwd", "Z" * 64, "A" * 64])
    def test_what_is_no_digest_is_refused_before_it_becomes_a_path(self, blobs: Blobs, digest: str) -> None:
        with pytest.raises(InvalidInput):
            blobs.read(digest)

    def test_changed_bytes_are_an_error_never_data(self, blobs: Blobs, damage: Damage, tmp_path: Path) -> None:
        sha256, _ = blobs.put(io.BytesIO(_DATA))
        damage(sha256)
        with pytest.raises(DigestMismatch):
            blobs.read(sha256)
        with pytest.raises(DigestMismatch):
            blobs.fetch(sha256, tmp_path / "x")
        assert not list(tmp_path.iterdir())
