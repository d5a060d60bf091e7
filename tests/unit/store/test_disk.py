"""A file is whole or absent, however the writing ends."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.core.errors import PermissionDenied, StorageFull
from espalier.store import disk
from espalier.store.blobs import LocalBlobs
from espalier.store.disk import new_file, remove_unfinished, storage_errors, write_file
from espalier.store.store import Store


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_file(target, b"old")
    with pytest.raises(RuntimeError), new_file(target) as descriptor:
        os.write(descriptor, b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert files_in(tmp_path) == ["a.txt"]


class FullDisk:
    """Lets `room_bytes` through, then is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room_bytes: int) -> None:
        self.room_bytes = room_bytes
        self._write = os.write
        monkeypatch.setattr(disk.os, "write", self.write)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if self.room_bytes <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = bytes(data[: self.room_bytes])
        self.room_bytes -= len(part)
        return self._write(descriptor, part)


def test_a_full_disk_is_said_so_and_leaves_no_half_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = LocalBlobs(tmp_path)
    kept, _ = blobs.put(io.BytesIO(b"was here before"))
    FullDisk(monkeypatch, 100_000)
    with pytest.raises(StorageFull) as caught:
        blobs.put(io.BytesIO(b"x" * 200_000))
    assert "free some space" in caught.value.hint
    assert files_in(tmp_path) == [kept[2:]]
    assert blobs.read(kept) == b"was here before"


def test_an_artifact_that_did_not_fit_is_not_there_and_fits_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 50_000)
    with monkeypatch.context() as patch:
        FullDisk(patch, 120_000)
        with pytest.raises(StorageFull):
            store.artifacts.put("dataset", folder)
    artifact = store.artifacts.put("dataset", folder)
    assert files_in(store.artifacts.materialise(artifact.digest)) == ["0.bin", "1.bin", "2.bin", "3.bin"]


def test_a_limit_of_the_kernel_on_file_size_is_a_full_disk_too(tmp_path: Path) -> None:
    code = f"""
import io, resource, signal
from pathlib import Path
from espalier.core.errors import StorageFull
from espalier.store.blobs import LocalBlobs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    LocalBlobs(Path({str(tmp_path)!r})).put(io.BytesIO(b"x" * 100000))
except StorageFull as error:
    print("full")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "full"
    assert files_in(tmp_path) == []


def test_kill_9_in_the_middle_of_a_put_leaves_no_blob_under_its_name(tmp_path: Path) -> None:
    code = f"""
import hashlib, os, signal
from pathlib import Path
from espalier.store.blobs import LocalBlobs

class Source:
    parts = [b"x" * 1000, b"y" * 1000]
    def read(self, size):
        if not self.parts:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.parts.pop()

LocalBlobs(Path({str(tmp_path)!r})).put(Source())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    blobs = LocalBlobs(tmp_path)
    sha256, _ = blobs.put(io.BytesIO(b"y" * 1000 + b"x" * 1000))
    assert blobs.read(sha256) == b"y" * 1000 + b"x" * 1000


def test_what_kill_9_left_half_written_can_be_removed_and_nothing_else_is(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from espalier.store.disk import new_file

with new_file(Path({str(tmp_path / "a.txt")!r})) as descriptor:
    os.write(descriptor, b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    write_file(tmp_path / "a.txt", b"old")
    write_file(tmp_path / ".hidden", b"a user's")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(files_in(tmp_path)) == 3
    remove_unfinished(tmp_path)
    assert files_in(tmp_path) == [".hidden", "a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EACCES, PermissionDenied),
        (errno.EROFS, PermissionDenied),
        (errno.EIO, OSError),
    ],
)
def test_an_error_of_the_disk_becomes_what_a_user_can_act_on(
    number: int, kind: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(kind), storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))
