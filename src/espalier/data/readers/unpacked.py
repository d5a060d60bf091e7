"""A compressed file as a stream of its uncompressed bytes, counted against a ratio. Knows no names and no formats."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any

from espalier.core.errors import InvalidInput
from espalier.data.readers.archive import Counted, allowed_bytes

PACKINGS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "xz": "xz"}
MAX_RATIO = 200.0
MAX_UNPACKED_BYTES = 1 << 40


class Unpacked(io.RawIOBase):
    """The uncompressed bytes of a file. `position` is how far its packed bytes were read, for a progress bar."""

    def __init__(self, path: Path, packing: str, ratio: float, what: str) -> None:
        super().__init__()
        self._raw = path.open("rb", buffering=0)
        self.size_bytes = os.fstat(self._raw.fileno()).st_size  # packed
        stream = open_packing(self._raw, packing) if packing else self._raw
        allowed = allowed_bytes(self.size_bytes, ratio, MAX_UNPACKED_BYTES) if packing else MAX_UNPACKED_BYTES
        self._stream = Counted(stream, allowed, what)

    @property
    def position(self) -> int:
        return min(self._raw.tell(), self.size_bytes)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer only at the end; all of them without a size."""
        pieces = [self._stream.read(size)]
        missing = -1 if size is None or size < 0 else size - len(pieces[0])
        while missing and pieces[-1]:
            pieces.append(self._stream.read(missing))
            missing -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


def open_packing(raw: IO[bytes] | io.RawIOBase, packing: str) -> Any:
    """A stream's bytes uncompressed; `packing` is a key of PACKINGS."""
    if packing not in PACKINGS:
        raise InvalidInput(f"no such compression: {packing}", hint=f"known: {', '.join(sorted(PACKINGS))}")
    if packing == "xz":
        import lzma

        return lzma.LZMAFile(raw)  # type: ignore[arg-type]
    import pyarrow as pa

    # Arrow's codecs give the lock back while they unpack, know members that follow each other, and need no package.
    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), PACKINGS[packing])
