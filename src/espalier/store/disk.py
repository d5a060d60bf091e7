"""Writing to a disk so that a file is whole or absent: temporary name, fsync, rename, fsync of the folder.

Knows nothing of blobs or records; it is where ENOSPC becomes `StorageFull`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espalier.core.errors import PermissionDenied, StorageFull
from espalier.core.ids import make_id

_UNFINISHED = "tmp"
# EFBIG is what a process gets that has reached its file size limit: for us the same case.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Raise StorageFull, or PermissionDenied, for an OSError that means it; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                f"no space left to write {place}; nothing half-written was kept",
                hint="free some space (`df -h`) and run the same command again",
            ) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise PermissionDenied(f"may not write {place}", hint="check the folder's owner and mode") from error
        raise


@contextmanager
def temporary_file(folder: Path, *, mode: int = 0o644) -> Iterator[tuple[int, Path]]:
    """A descriptor to write and its path, in `folder` (made when absent); gone on leaving unless it was renamed.

    Raises StorageFull, PermissionDenied.
    """
    path = folder / f".{make_id(_UNFINISHED)}"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
        try:
            yield descriptor, path
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path, *, mode: int = 0o644) -> Iterator[int]:
    """A descriptor to write; on leaving, the bytes are on disk under `path`. On an error there is nothing there.

    An existing file is replaced in one step. Raises StorageFull, PermissionDenied.
    """
    with temporary_file(path.parent, mode=mode) as (descriptor, temporary):
        yield descriptor
        os.fsync(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """`data` at `path`, whole or not at all."""
    with new_file(path, mode=mode) as descriptor:
        write_all(descriptor, data)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that a killed process left in `folder` itself; only while nobody writes there.

    Raises PermissionDenied.
    """
    with storage_errors(folder):
        for path in folder.glob(f".{_UNFINISHED}_*"):
            path.unlink(missing_ok=True)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """All of `data`, however the kernel slices it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
