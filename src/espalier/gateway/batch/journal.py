"""The journal of a batch: each answered line, on disk before it counts as done, whatever kills the process.

    crc32 of the rest (8 hex digits) SP kind SP line SP prompt tokens SP completion tokens SP text LF

Kinds: `=` the head (which batch of which input), `@` a model's name pinned to a version, `+` an answer, `-` a refusal,
`.` the input has been checked to its end. The text of `+` and `-` is the line of the output file, as it will be
published. A line torn by a crash is cut off; one damaged otherwise is not believed, and asked again. The file is
locked by who writes it: two processes never do, and a dead one's lock is gone with it. Knows no shape and no engine.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from espalier.core.errors import Conflict, DigestMismatch
from espalier.store.disk import storage_errors

Kind = Literal["=", "@", "+", "-", "."]
_ABSENT = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal."""

    kind: Kind
    line: int = 0
    text: bytes = b""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class Counts:
    """What is done."""

    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def done(self) -> int:
        return self.completed + self.failed


class Journal:
    """The journal at `path` of a batch with `lines` lines; made when absent. Keep it open for as long as it is written.

    `head` names what it is of. Raises Conflict while another process writes it, DigestMismatch when it is another's.
    """

    def __init__(self, path: Path, lines: int, head: str) -> None:
        self._path = path
        self._places = array("q", [_ABSENT]) * lines  # where each done line's entry begins
        self.counts = Counts()
        self.pins: dict[str, str] = {}
        self.checked = False
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _lock(self._descriptor, path)
            self._size = self._recover(head)
            if not self._size:
                self.add([Entry("=", text=json.dumps(head).encode())])
        except BaseException:
            os.close(self._descriptor)
            raise

    def is_done(self, line: int) -> bool:
        return self._places[line] != _ABSENT

    def open_lines(self) -> Iterator[int]:
        """Numbers of the lines that are not done, ascending; those done meanwhile are left out."""
        return (line for line, place in enumerate(self._places) if place == _ABSENT)

    def add(self, entries: Sequence[Entry]) -> None:
        """Append a group; on disk when this returns. A line that is done already stays as it is. Raises StorageFull."""
        data = bytearray()
        for entry in entries:
            place = self._size + len(data)
            if self._take(entry, place):
                data += write_entry(entry)
        with storage_errors(self._path):
            _write(self._descriptor, data)
            os.fsync(self._descriptor)
        self._size += len(data)

    def read(self, line: int) -> Entry:
        """A done line's entry."""
        with self._path.open("rb") as stream:
            return self._read(stream.fileno(), self._places[line])

    def entries(self) -> Iterator[Entry | None]:
        """For every line of the input in its order: its entry, or None where it is not done."""
        for place in self._places:
            yield None if place == _ABSENT else self._read(self._descriptor, place)

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._descriptor)

    def _recover(self, head: str) -> int:
        """Read what is there and cut a torn end off; returns the size. What is damaged may have been a pin or the
        refusal of a line, so the batch is then looked at again."""
        place, damaged = 0, False
        with self._path.open("rb") as stream:
            for raw in stream:
                if not raw.endswith(b"\n"):
                    os.ftruncate(self._descriptor, place)
                    break
                entry = read_entry(raw)
                if entry is not None:
                    if entry.kind == "=" and json.loads(entry.text) != head:
                        raise DigestMismatch(f"{self._path} is the journal of another batch", hint="move it away")
                    self._take(entry, place)
                damaged = damaged or entry is None
                place += len(raw)
        self.checked = self.checked and not damaged
        return place

    def _take(self, entry: Entry, place: int) -> bool:
        """Note an entry; False for a line that is done already."""
        if entry.kind == "@":
            self.pins.update(json.loads(entry.text))
        elif entry.kind == ".":
            self.checked = True
        elif entry.kind in "+-":
            if not entry.line < len(self._places) or self.is_done(entry.line):
                return False
            self._places[entry.line] = place
            self.counts.completed += entry.kind == "+"
            self.counts.failed += entry.kind == "-"
            self.counts.prompt_tokens += entry.prompt_tokens
            self.counts.completion_tokens += entry.completion_tokens
        return True

    def _read(self, descriptor: int, place: int) -> Entry:
        data, end = bytearray(), -1
        while end < 0:
            chunk = os.pread(descriptor, 1 << 14, place + len(data))
            if not chunk:
                break
            end = chunk.find(b"\n")
            data += chunk if end < 0 else chunk[: end + 1]
        entry = read_entry(bytes(data))
        if entry is None:
            raise DigestMismatch(f"{self._path} was changed at byte {place}", hint="the disk or someone changed it")
        return entry


def write_entry(entry: Entry) -> bytes:
    """The entry as a line, with its end."""
    figures = f"{entry.kind} {entry.line} {entry.prompt_tokens} {entry.completion_tokens} "
    rest = figures.encode() + entry.text
    return b"%08x %b\n" % (zlib.crc32(rest), rest)


def read_entry(raw: bytes) -> Entry | None:
    """The inverse; None for a line that is not whole and as it was written."""
    sum, _, rest = raw.removesuffix(b"\n").partition(b" ")
    if sum != b"%08x" % zlib.crc32(rest):
        return None
    try:
        kind, line, prompt, completion, text = rest.split(b" ", 4)
        return Entry(kind.decode(), int(line), text, int(prompt), int(completion))  # type: ignore[arg-type]
    except ValueError:
        return None


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(f"another process writes {path.name}", hint="let it finish, or stop it") from None


def _write(descriptor: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
