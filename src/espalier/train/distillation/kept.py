"""What a teacher said of every learnt token, on disk by content: blocks of documents, a file each.

A block's file is named by all that decides its numbers, so an interrupted computation goes on where it stood, a second
run finds everything done, and two processes at once write the same bytes. Files are mapped, so that a corpus' worth of
a teacher's choices need not fit into memory. Knows no model.

Legend: r rows of a block, k tokens of each.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from espalier.core.ids import canonical_json
from espalier.store.disk import write_file
from espalier.tokens.pack import Strip

CHOICE = np.dtype([("id", np.int32), ("logp", np.float32)])  # one token a teacher found likely
Choices = npt.NDArray[Any]  # (r, k) of CHOICE


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of blocks; `key` is what decides their numbers beside the tokens."""

    folder: Path
    key: Mapping[str, Any]

    def path(self, strips: Sequence[Strip]) -> Path:
        """Where the choices for these documents lie, or will."""
        digest = sha256(canonical_json(dict(self.key)))
        for strip in strips:
            for part in (strip.ids, strip.positions, strip.segments, strip.rows):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(part).tobytes())
        return self.folder / f"{digest.hexdigest()}.npy"


def write_choices(path: Path, choices: Choices) -> None:
    """Whole or not at all. Raises StorageFull."""
    buffer = io.BytesIO()
    np.save(buffer, choices.astype(CHOICE))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer.getvalue())


def is_whole(path: Path, rows: int, k: int) -> bool:
    """Whether an earlier run left this block complete."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    return bool(found.shape == (rows, k) and found.dtype == CHOICE)


class Rows:
    """One field of all blocks end to end, read as it is asked for: `rows[start:end]` is (end - start, k)."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], field: str) -> None:
        self._paths, self._field = paths, field
        self._starts = np.array([0, *itertools.accumulate(counts)], np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, asked: slice) -> npt.NDArray[Any]:
        start, stop, _ = asked.indices(len(self))
        block = int(np.searchsorted(self._starts, start, "right")) - 1
        parts = []
        while block < len(self._paths):
            first = int(self._starts[block])
            held = np.load(self._paths[block], mmap_mode="r", allow_pickle=False)
            parts.append(np.array(held[max(0, start - first) : max(0, stop - first)][self._field]))
            block += 1
            if stop <= self._starts[block]:
                break
        return np.concatenate(parts)
