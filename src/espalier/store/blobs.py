"""Bytes by the sha256 of their content, in a folder. Implements `core.ports.Blobs`; `store/s3.py` is its sibling.

A blob is `ab/cdef...`, read-only, whole or absent. What is read is hashed first, so a changed byte is an error, never
data; a put of the same bytes heals a blob that was damaged.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound
from espalier.core.ids import make_id
from espalier.core.plugins import load_plugin
from espalier.core.ports import Blobs
from espalier.store.disk import new_file, sync_folder, temporary_file, write_all

CHUNK_BYTES = 1 << 20


class BlobsPlugin(Protocol):
    """What an `espalier.blobs` entry point names."""

    def from_url(self, url: str) -> Blobs: ...


def open_blobs(url: str) -> Blobs:
    """The blob store at `url` (`file:///path`, `s3://bucket/prefix`, or a plug-in's scheme)."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise InvalidInput(f"{url!r} is no URL of a blob store", hint="write file:///path or s3://bucket/prefix")
    plugin: BlobsPlugin = load_plugin("espalier.blobs", scheme)
    return plugin.from_url(url)


class LocalBlobs:
    """Blobs under `root`, which is made when the first one is put."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def from_url(cls, url: str) -> LocalBlobs:
        return cls(Path(url.removeprefix("file://")))

    def path(self, sha256: str) -> Path:
        """Where the blob is or would be; raises InvalidInput for what is no digest."""
        return self.root / check_digest(sha256)[:2] / sha256[2:]

    def put(self, source: IO[bytes]) -> tuple[str, int]:
        """Store a stream; returns (sha256 hex, size_bytes). Raises StorageFull."""
        hasher, size_bytes = hashlib.sha256(), 0
        with temporary_file(self.root, mode=0o444) as (descriptor, arriving):
            while chunk := source.read(CHUNK_BYTES):
                hasher.update(chunk)
                size_bytes += len(chunk)
                write_all(descriptor, chunk)
            sha256 = hasher.hexdigest()
            if not self._is_sound(sha256):
                os.fsync(descriptor)
                target = self.path(sha256)
                target.parent.mkdir(exist_ok=True)
                arriving.replace(target)
                sync_folder(target.parent)
        return sha256, size_bytes

    def put_file(self, path: Path) -> tuple[str, int]:
        """Store a file; bytes that are here already are not written again."""
        sha256 = hash_file(path)
        if self._is_sound(sha256):
            return sha256, path.stat().st_size
        with path.open("rb") as source:
            return self.put(source)

    def read(self, sha256: str) -> bytes:
        """Raises NotFound, or DigestMismatch when the stored bytes changed."""
        with self._found(sha256) as path:
            data = path.read_bytes()
        verify(sha256, hashlib.sha256(data).hexdigest(), path)
        return data

    def fetch(self, sha256: str, target: Path) -> None:
        """Put the blob at `target`, read-only: a hard link where the file system allows one, else a copy."""
        with self._found(sha256) as path:
            verify(sha256, hash_file(path), path)
        link = target.with_name(f".{target.name[:40]}.{make_id('tmp')}")
        try:
            os.link(path, link)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            with new_file(target, mode=0o444) as descriptor, path.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    write_all(descriptor, chunk)
            return
        link.replace(target)

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def free_bytes(self) -> int:
        """Room left on the disk the blobs are on."""
        return shutil.disk_usage(self.root if self.root.exists() else self.root.parent).free

    def _is_sound(self, sha256: str) -> bool:
        path = self.path(sha256)
        return path.is_file() and hash_file(path) == sha256

    @contextmanager
    def _found(self, sha256: str) -> Iterator[Path]:
        path = self.path(sha256)
        try:
            yield path
        except FileNotFoundError:
            raise NotFound(f"no blob {sha256[:12]} in {self.root}", hint="run the step that made it again") from None


def check_digest(sha256: str) -> str:
    """`sha256` itself; raises InvalidInput unless it is 64 lower-case hex digits (it becomes part of a path)."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise InvalidInput(f"{sha256!r} is not a sha256 digest", hint="write 64 hexadecimal digits")
    return sha256


def hash_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def verify(wanted: str, found: str, place: Path | str) -> None:
    """Raise DigestMismatch unless the two digests are equal."""
    if wanted != found:
        raise DigestMismatch(
            f"{place} holds other bytes than were stored: {found[:12]}, recorded {wanted[:12]}",
            hint="the disk or someone changed it; run the step that made it again to restore it",
        )
