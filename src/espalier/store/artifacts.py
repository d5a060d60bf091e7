"""Artifacts: folders of files that never change, named by the digest of their manifest; and the lineage between them.

Bytes go to the blob store first (`stage`), the row afterwards (`add`), so a row never names bytes that are not there.
Laid out as a folder again, an artifact is hard links into the blob store, checked against the manifest each time it
is asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import insert, select

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound
from espalier.core.ids import digest_of, make_id, now_ms
from espalier.core.ports import Blobs
from espalier.core.types import Artifact, ArtifactFile, Spec
from espalier.store.blobs import check_digest
from espalier.store.database import Database
from espalier.store.disk import storage_errors
from espalier.store.facts import FileFacts
from espalier.store.tables import artifacts, edges


class Edge(Spec):
    """`child` was made from `parent`, which its step was given as `role`."""

    child: str
    parent: str
    role: str


class Artifacts:
    """All artifacts of one store; `folder` is where they are laid out for reading."""

    def __init__(self, database: Database, blobs: Blobs, facts: FileFacts, folder: Path) -> None:
        self._database = database
        self._blobs = blobs
        self._facts = facts
        self._folder = folder

    def put(self, kind: str, folder: Path, meta: Mapping[str, str] | None = None, made_by: str = "") -> Artifact:
        """Store what stands in `folder` (or one file). The same content twice is one artifact; the first maker stays.

        Raises InvalidInput for a folder that is empty or holds a link, StorageFull.
        """
        return self.add(self.stage(kind, folder, meta, made_by))

    def stage(self, kind: str, folder: Path, meta: Mapping[str, str] | None = None, made_by: str = "") -> Artifact:
        """Store the bytes only; `add` makes them an artifact. Work that has to commit at once does the two apart."""
        files = []
        for path, name in _files_of(folder):
            sha256, size_bytes = self._blobs.put_file(path)
            files.append(ArtifactFile(path=name, sha256=sha256, size_bytes=size_bytes))
        if not files:
            raise InvalidInput(f"{folder} holds no file to make an artifact of kind {kind} from")
        meta = dict(meta or {})
        return Artifact(
            digest=manifest_digest(kind, files, meta), kind=kind, files=tuple(files), meta=meta, made_by=made_by
        )

    def add(self, artifact: Artifact) -> Artifact:
        """Record a staged artifact; returns the recorded one."""
        with self._database.write(lock=f"artifact:{artifact.digest}") as connection:
            known = self.find(artifact.digest)
            if known is not None:
                return known
            connection.execute(
                insert(artifacts).values(
                    digest=artifact.digest,
                    kind=artifact.kind,
                    files=[file.model_dump() for file in artifact.files],
                    meta=artifact.meta,
                    made_by=artifact.made_by,
                    size_bytes=sum(file.size_bytes for file in artifact.files),
                    created_ms=now_ms(),
                )
            )
        return artifact

    def get(self, digest: str) -> Artifact:
        """Raises NotFound."""
        found = self.find(digest)
        if found is None:
            raise NotFound(f"no artifact {digest[:12] or '(empty digest)'}", hint="`espalier run` makes it again")
        return found

    def find(self, digest: str) -> Artifact | None:
        """The artifact, or None."""
        with self._database.read() as connection:
            row = connection.execute(select(artifacts).where(artifacts.c.digest == digest)).first()
        if row is None:
            return None
        return Artifact(digest=row.digest, kind=row.kind, files=row.files, meta=row.meta, made_by=row.made_by)

    def materialise(self, digest: str) -> Path:
        """The artifact as a folder of read-only files, made once and checked every time.

        Raises NotFound, DigestMismatch when stored bytes changed, StorageFull.
        """
        artifact = self.get(check_digest(digest))
        folder = self._folder / digest
        if folder.is_dir():
            if not self._faults_in(folder, artifact):
                return folder
            shutil.rmtree(folder)
        arriving = self._folder / f".{make_id('tmp')}"
        try:
            with storage_errors(folder):
                for file in artifact.files:
                    target = arriving / file.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._blobs.fetch(file.sha256, target)
                try:
                    arriving.rename(folder)
                except OSError:
                    if not folder.is_dir():  # else another process laid out the same bytes meanwhile
                        raise
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
        return folder

    def check(self, digest: str) -> str:
        """What is wrong with the artifact's bytes, in words; empty when it can be used."""
        try:
            self.materialise(digest)
        except (NotFound, DigestMismatch) as error:
            return error.message
        return ""

    def link(self, child: str, parent: str, role: str) -> None:
        """Record that `child` was made from `parent`; saying it twice changes nothing."""
        edge = {"child": child, "parent": parent, "role": role}
        with self._database.write(lock=f"artifact:{child}") as connection:
            if not connection.execute(select(edges).filter_by(**edge)).first():
                connection.execute(insert(edges).values(**edge, created_ms=now_ms()))

    def parents(self, digest: str) -> Sequence[Edge]:
        """What the artifact was made from, by role."""
        return self._edges(edges.c.child == digest)

    def children(self, digest: str) -> Sequence[Edge]:
        """What was made from the artifact."""
        return self._edges(edges.c.parent == digest)

    def _edges(self, condition: object) -> Sequence[Edge]:
        query = select(edges).where(condition).order_by(edges.c.created_ms, edges.c.role, edges.c.child, edges.c.parent)  # type: ignore[arg-type]
        with self._database.read() as connection:
            return [Edge(child=row.child, parent=row.parent, role=row.role) for row in connection.execute(query)]

    def _faults_in(self, folder: Path, artifact: Artifact) -> bool:
        wanted = {folder / file.path: file.sha256 for file in artifact.files}
        try:
            return self._facts.digests(wanted) != wanted
        except FileNotFoundError:
            return True


def manifest_digest(kind: str, files: Sequence[ArtifactFile], meta: Mapping[str, str]) -> str:
    """sha256 over the canonical JSON of (kind, files, meta)."""
    listed = [file.model_dump() for file in sorted(files, key=lambda file: file.path)]
    return digest_of({"kind": kind, "files": listed, "meta": dict(meta)})


def _files_of(folder: Path) -> Sequence[tuple[Path, str]]:
    """Every file with its name in the manifest, in name order."""
    if folder.is_file():
        return [(folder, folder.name)]
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise InvalidInput(f"{path} is a link", hint="an artifact holds files only; copy what it points to")
        if path.is_file():
            found.append((path, path.relative_to(folder).as_posix()))
    return sorted(found, key=lambda item: item[1])
