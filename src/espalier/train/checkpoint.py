"""A run's whole state on disk, written so that a kill at any moment leaves the last one whole.

A checkpoint is a folder `step-00000120` with `tensors.safetensors` and `state.json`; it is written under another
name, flushed to the disk and renamed. `state.json` holds the digest of the tensors, so a damaged checkpoint is passed
over. No pickle.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from espalier.core.errors import Conflict, StorageFull
from espalier.train.tensorfile import iterate_bytes

_PREFIX = "step-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by name, and JSON values; `step` is how many steps are done."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def write(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write one checkpoint under `folder`, then drop all but the newest `keep`.

    Raises StorageFull and leaves the others as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{_PREFIX}{step:08d}"
    draft = folder / f".draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir()
        digest = _flush(draft / "tensors.safetensors", iterate_bytes(tensors))
        record = {**state, "step": step, "tensors_sha256": digest}
        _flush(draft / "state.json", [json.dumps(record, indent=1).encode()])
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if error.errno == errno.ENOSPC:
            raise StorageFull(
                f"the disk is full; checkpoint {step} was not written", hint="free space and run the same command again"
            ) from error
        raise
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    _flush_folder(folder)
    for old in _found(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def newest(folder: Path) -> Checkpoint | None:
    """The last whole checkpoint under `folder`, None when there is none."""
    for path in reversed(_found(folder)):
        try:
            state = json.loads((path / "state.json").read_text())
            with (path / "tensors.safetensors").open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError):
            continue
        if digest == state.get("tensors_sha256"):
            return Checkpoint(int(state["step"]), load_file(path / "tensors.safetensors"), state)
    return None


def check_identity(found: Checkpoint, identity: Mapping[str, Any], folder: Path) -> None:
    """Raise Conflict, naming what differs, when the checkpoint is of another run than `identity` describes."""
    before, now = found.state.get("identity") or {}, json.loads(json.dumps(dict(identity)))
    differing = sorted(_differences(before, now))
    if differing:
        raise Conflict(
            f"the checkpoint in {folder} is of another run: its {', '.join(differing)} differ",
            hint="use another folder, or delete it to start afresh",
        )


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield name


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []


def _flush(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Write the pieces to the disk itself; their sha256 (hex)."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
