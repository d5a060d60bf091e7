"""The files of batches: what clients upload and what batches give back, each the property of one payer.

The bytes are content-addressed blobs, so two uploads of one file are stored once; the record names them and whose they
are. A file of another's is one that does not exist. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.ids import make_id, now_ms
from espalier.core.types import Spec
from espalier.store.store import Store

Purpose = Literal["batch", "batch_output"]
_KIND = "file"
_POINTERS = "file:"
_PRESENT, _DELETED = "present", "deleted"


class StoredFile(Spec):
    """One file. `owner` is the payer of the key that made it; empty where no key was asked for."""

    id: str
    name: str
    purpose: Purpose
    sha256: str
    size_bytes: int
    owner: str = ""
    created_ms: int


class Files:
    """All files of one store. Every method blocks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, path: Path, name: str, purpose: Purpose, owner: str) -> StoredFile:
        """Take the bytes at `path` in. Raises StorageFull."""
        sha256, size_bytes = self._store.blobs.put_file(path)
        return self.record(sha256, size_bytes, name, purpose, owner)

    def record(self, sha256: str, size_bytes: int, name: str, purpose: Purpose, owner: str) -> StoredFile:
        """Give bytes that are stored already a file's name and owner."""
        file = StoredFile(
            id=make_id("file").replace("_", "-"),
            name=Path(name).name[:255] or "file",
            purpose=purpose,
            sha256=sha256,
            size_bytes=size_bytes,
            owner=owner,
            created_ms=now_ms(),
        )
        with self._store.transaction():
            self._store.records.put(_KIND, file.id, file)
            self._store.records.set_pointer(_pointer(file.id), _PRESENT, expect=None, actor=owner or "local")
        return file

    def get(self, id: str, owner: str | None) -> StoredFile:
        """A file of that owner's; None stands for who may see all. Raises NotFound."""
        missing = NotFound(f"no file {id!r:.80}", hint="upload it with purpose `batch`", where="file_id")
        if not self._store.records.has(_KIND, id):
            raise missing
        file = self._store.records.get(_KIND, id, StoredFile)
        pointer = self._store.records.find_pointer(_pointer(id))
        if pointer is None or pointer.target == _DELETED or (owner is not None and file.owner != owner):
            raise missing
        return file

    def list(
        self,
        owner: str | None,
        *,
        limit: int = 100,
        after: str = "",
        purpose: str = "",
        oldest_first: bool = False,
    ) -> Sequence[StoredFile]:
        """The newest first, or the oldest; of one purpose, if one is given; those that come `after` that file.

        Raises InvalidInput for an `after` that is no file of the owner's; one deleted meanwhile still has its place.
        """
        if purpose and purpose not in get_args(Purpose):
            return []  # a client may ask for a purpose that no file has here
        if after:
            known = self._store.records.has(_KIND, after) and self._store.records.get(_KIND, after, StoredFile)
            if not known or (owner is not None and known.owner != owner):
                wrong = f"after is {after!r:.80}, no file"
                raise InvalidInput(wrong, where="after", hint="give the last page's last id")
        fields = {"owner": owner, "purpose": purpose or None}
        return self._store.records.list(
            _KIND,
            StoredFile,
            limit,
            after,
            after=after if oldest_first else None,
            where=[{name: value for name, value in fields.items() if value is not None}],
            pointed=(_POINTERS, _PRESENT),
        )

    def delete(self, id: str, owner: str | None) -> None:
        """Nobody can fetch it any more; a batch that reads it goes on, since its bytes stay. Raises NotFound."""
        file = self.get(id, owner)
        self._store.records.set_pointer(_pointer(file.id), _DELETED, actor=file.owner or "local")

    def fetch(self, file: StoredFile, target: Path) -> None:
        """Put a file's bytes at `target`, read-only. Raises NotFound, DigestMismatch."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._store.blobs.fetch(file.sha256, target)


def _pointer(id: str) -> str:
    return _POINTERS + id
