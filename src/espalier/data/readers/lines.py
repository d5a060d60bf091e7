"""The physical lines of a text source in blocks, as UTF-8 bytes with their numbers and offsets, in bounded memory.

Finds what concerns lines as such: byte order marks, other encodings, CR LF, lines that are too long. Knows no format.

Legend: n = lines of a block.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espalier.core.errors import InvalidInput
from espalier.data.readers.findings import Findings
from espalier.data.readers.problem import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

Watch = Callable[[int, int, int], None]  # bytes done, bytes in all (both as they lie on disk), rows so far
BLOCK_BYTES = 4 << 20
BLOCK_LINES = 1 << 15
_SAMPLE_BYTES = 1 << 20
_GUESS_BYTES = 1 << 16
_NUL_SHARE, _NUL_LEAST = 0.002, 16  # more in the sample, and it is no text
_MARKED = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"))
_MARKS = (*_MARKED, (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(slots=True)
class Block:
    """Lines that follow each other, but for those that were too long."""

    lines: list[bytes]  # (n,) without their line feeds
    numbers: NDArray[np.int64]  # (n,) physical, from 1
    starts: NDArray[np.int64]  # (n,) offset of the first byte, in the file as UTF-8 without its byte order mark
    ends: NDArray[np.int64]  # (n,) one past the line feed
    data: bytes  # at least all of these lines: to look for something rare in one go


class LineSource:
    """Opens a source and gives its lines. `problems` found on opening are the first to be reported.

    Raises InvalidInput for bytes that are no text.
    """

    def __init__(self, findings: Findings, watch: Watch | None = None) -> None:
        self._findings = findings
        self._watch = watch
        self._packed = findings.source.open(findings.options.max_ratio)
        self.problems: list[Problem] = []
        self.rows = 0  # told by the reader, for the progress
        self._crlf_first = self._crlf_lines = self._next_number = 0
        head = self._packed.read(_SAMPLE_BYTES)
        self._stream: Any = self._prepare(head)

    @property
    def stopped(self) -> bool:
        """Whether the policy leaves the whole file out, or refuses it, for what was found on opening."""
        return any(problem.action != "repair" for problem in self.problems)

    def blocks(self) -> Iterator[Block | Problem]:
        """All lines, and the problems of lines as such."""
        yield from self.problems
        if self.stopped:
            return
        number, offset, rest = 1, 0, b""
        while data := self._stream.read(BLOCK_BYTES):
            data = rest + data
            cut = data.rfind(b"\n") + 1
            if not cut and len(data) > self._findings.options.max_line_bytes:
                line_bytes, rest = self._pass_line(len(data))
                yield self._too_long(number, line_bytes)
                number, offset = number + 1, offset + line_bytes + 1
                continue
            rest = data[cut:]
            if cut:
                yield from self._cut(data[: cut - 1], number, offset)
                number, offset = self._next_number, offset + cut
            self.tell_progress()
        if rest:
            yield from self._cut(rest, number, offset, ended=False)
        if self._crlf_lines:
            message = f"{self._crlf_lines} lines end in CR LF"
            yield self._findings.find("crlf", self._crlf_first, message, self._crlf_lines)
        self.tell_progress()

    def read(self, size: int) -> bytes:
        """The bytes as UTF-8 without their mark, for a format that does not go by lines; empty at the end."""
        data: bytes = self._stream.read(size)
        return data

    def close(self) -> None:
        self._packed.close()

    def _prepare(self, head: bytes) -> Any:
        for mark, encoding in _MARKS:
            if head.startswith(mark):
                self._found("encoding", f"marked as {encoding.upper()}")
                return _Transcoded(_Chained(head, self._packed), encoding)
        if head.startswith(codecs.BOM_UTF8):
            self._found("bom", "a UTF-8 byte order mark")
            head = head[len(codecs.BOM_UTF8) :]
        if head.count(b"\x00") > max(_NUL_LEAST, _NUL_SHARE * len(head)):
            raise InvalidInput("binary bytes, not text", hint="convert it to UTF-8")
        encoding = _guess_encoding(head)
        if not encoding:
            stream = _Chained(head, self._packed)
            return _Fed(stream) if b"\r" in head and b"\n" not in head else stream
        self._found("encoding", f"not UTF-8, by the look of it {encoding}")
        return _Transcoded(_Chained(head, self._packed), encoding)

    def _found(self, kind: str, message: str) -> None:
        self.problems.append(self._findings.find(kind, 1 if kind == "bom" else 0, message))

    def _cut(self, data: bytes, number: int, offset: int, *, ended: bool = True) -> Iterator[Block | Problem]:
        lines = data.split(b"\n")
        self._next_number = number + len(lines)
        lengths = np.fromiter(map(len, lines), np.int64, len(lines))
        ends = offset + np.cumsum(lengths + 1)
        starts = ends - lengths - 1
        if not ended:
            ends[-1] -= 1
        if b"\r" in data and (crlf := data.count(b"\r\n") + (ended and data.endswith(b"\r"))):
            if not self._crlf_lines:
                self._crlf_first = number + next(at for at, line in enumerate(lines) if line.endswith(b"\r"))
                if self._findings.action("crlf") != "repair":
                    yield self._findings.find("crlf", self._crlf_first, "a line ends in CR LF")
            self._crlf_lines += crlf
        numbers = np.arange(number, number + len(lines), dtype=np.int64)
        if lengths.max() > self._findings.options.max_line_bytes:
            good = lengths <= self._findings.options.max_line_bytes
            for at in np.flatnonzero(~good).tolist():
                yield self._too_long(number + at, int(lengths[at]))
            lines = [line for line, keep in zip(lines, good.tolist(), strict=True) if keep]
            numbers, starts, ends = numbers[good], starts[good], ends[good]
        for at in range(0, len(lines), BLOCK_LINES):
            part = slice(at, at + BLOCK_LINES)
            yield Block(lines[part], numbers[part], starts[part], ends[part], data)

    def _pass_line(self, size_bytes: int) -> tuple[int, bytes]:
        """Read on to the end of the line; its bytes without the line feed, and what follows."""
        while data := self._stream.read(BLOCK_BYTES):
            at = data.find(b"\n")
            if at >= 0:
                return size_bytes + at, data[at + 1 :]
            size_bytes += len(data)
            self.tell_progress()
        return size_bytes, b""

    def _too_long(self, number: int, size_bytes: int) -> Problem:
        most = self._findings.options.max_line_bytes
        return self._findings.find("long_line", number, f"{size_bytes} bytes, more than max_line_bytes ({most})")

    def tell_progress(self) -> None:
        if self._watch:
            self._watch(self._packed.position, self._packed.size_bytes, self.rows)


class _Chained(io.RawIOBase):
    """What was read already, then the rest of the stream."""

    def __init__(self, head: bytes, stream: Any) -> None:
        super().__init__()
        self._head, self._stream = head, stream

    def read(self, size: int | None = -1) -> bytes:
        if not self._head:
            data: bytes = self._stream.read(size)
            return data
        wanted = len(self._head) if size is None or size < 0 else size
        data, self._head = self._head[:wanted], self._head[wanted:]
        return data


class _Fed(io.RawIOBase):
    """A stream whose lines end in CR alone, as old Macs wrote them, with LF."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def read(self, size: int | None = -1) -> bytes:
        data: bytes = self._stream.read(size)
        return data.replace(b"\r", b"\n")


class _Transcoded(io.RawIOBase):
    """A stream in another encoding, as UTF-8; what the encoding does not know becomes U+FFFD."""

    def __init__(self, stream: Any, encoding: str) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")

    def read(self, size: int | None = -1) -> bytes:
        while data := self._stream.read(size):
            if text := self._decoder.decode(data):
                return text.encode("utf-8", "replace")
        return self._decoder.decode(b"", True).encode("utf-8", "replace")


def _guess_encoding(head: bytes) -> str:
    """Empty for UTF-8, also where single lines of it are broken; else the encoding most likely."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return ""
    except UnicodeDecodeError:
        pass
    valid, invalid = 0, []
    for line in head.split(b"\n")[:-1] or [head]:
        if not line.isascii():
            try:
                line.decode("utf-8")
                valid += 1
            except UnicodeDecodeError:
                invalid.append(line)
    if valid or not invalid:
        return ""
    from charset_normalizer import from_bytes

    best = from_bytes(b"\n".join(invalid)[:_GUESS_BYTES]).best()
    if best is None:
        raise InvalidInput("text in no known encoding", hint="convert it to UTF-8")
    return str(best.encoding)
