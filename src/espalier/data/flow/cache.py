"""The folder builds keep what they read and computed in: open to several at once, and held within bounds.

What was not used for long goes, and beyond a size what was used longest ago. "Used" is a file's modification time,
which looking it up renews (`files.open_batches`, `load_json`). Whatever goes is made again when it is wanted: pruning
may be broken off anywhere. Knows how the folder is divided, and nothing of what the files say.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from espalier.store.disk import storage_errors

KEEP_S = 30 * 24 * 3600
MAX_BYTES = 64 << 30
_LOCK = ".lock"
# Folders in which a folder of this depth is one thing; elsewhere all files of one name are, whatever their suffix.
_WHOLE = {("decisions",): 2, ("fetched", "hub"): 4}
_WORK = ("work", "split-")  # of builds under way


@contextmanager
def open_cache(folder: Path | None, *, keep_s: float = KEEP_S, max_bytes: int = MAX_BYTES) -> Iterator[Path]:
    """The cache folder, made when absent and pruned on leaving; without one a folder that is gone afterwards.

    Nothing is pruned that was used since it was opened, nor while another build has it open: the last one out does it.
    Raises StorageFull, PermissionDenied.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="espalier-data-") as made:
            yield Path(made)
        return
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)  # it holds sources as they were before redaction
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    shared = False
    try:
        shared = _take(lock, fcntl.LOCK_SH)
        os.utime(lock)
        opened_s = os.fstat(lock).st_mtime  # by the clock of the disk, which may not be this machine's
        yield folder
    finally:
        if shared and _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            with suppress(OSError):
                prune(folder, opened_s, keep_s, max_bytes)
        os.close(lock)


def _take(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how)
    except OSError:  # another build has it, or this file system has no locks
        return False
    return True


@dataclass(slots=True)
class _Entry:
    """What is kept or goes as one."""

    paths: list[Path] = field(default_factory=list)
    size_bytes: int = 0
    used_s: float = 0.0


def prune(folder: Path, opened_s: float, keep_s: float, max_bytes: int) -> None:
    """Remove what is too old, or too much; nothing used since `opened_s`. Only while nobody else has the folder open.

    What a killed build left unfinished goes too.
    """
    kept = sorted(_list_entries(folder), key=lambda entry: entry.used_s)
    left_bytes = sum(entry.size_bytes for entry in kept)
    for entry in kept:
        if entry.used_s >= opened_s or (entry.used_s >= opened_s - keep_s and left_bytes <= max_bytes):
            break
        left_bytes -= entry.size_bytes
        for path in entry.paths:
            path.unlink(missing_ok=True)
    for path in folder.glob("decisions/*"):
        with suppress(OSError):
            path.rmdir()  # those that are empty now


def _list_entries(folder: Path) -> list[_Entry]:
    entries: dict[tuple[str, ...], _Entry] = {}
    for root, folders, names in os.walk(folder):
        parts = Path(root).relative_to(folder).parts
        if not parts:
            for name in [name for name in folders if name.startswith(_WORK)]:
                shutil.rmtree(folder / name, ignore_errors=True)
                folders.remove(name)
            continue
        depth = next((depth for first, depth in _WHOLE.items() if parts[: len(first)] == first), 0)
        for name in names:
            path = Path(root, name)
            if (not depth and name.startswith(".")) or name.endswith(".progress"):
                path.unlink(missing_ok=True)
                continue
            key = parts[:depth] if depth else (*parts, name.partition(".")[0])
            entry = entries.setdefault(key, _Entry())
            found = path.stat()
            entry.paths.append(path)
            entry.size_bytes += found.st_size
            entry.used_s = max(entry.used_s, found.st_mtime)
    return list(entries.values())
