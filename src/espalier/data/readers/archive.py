"""ZIP and TAR archives as rows of members that pass by, within limits: nothing is unpacked but into the reader's hands.

What an archive says about itself (names, sizes) is checked before anything is read; what it then gives is counted,
since declared sizes may lie. Knows no document format, and nothing of where members are kept.
"""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from espalier.core.errors import InvalidInput

# A ratio means nothing for small things: a page of blanks packs a thousandfold.
RATIO_FLOOR_BYTES = 32 << 20
_PIECE_BYTES = 8 << 20
_END_RECORD, _END_RECORD_BYTES = b"PK\x05\x06", 22
_LARGE_RECORD = b"PK\x06\x06"
_DIRECTORY_BYTES_A_MEMBER = 1 << 10  # 46 bytes and a name: more on average is no honest directory
_LOCAL_HEADER_BYTES = 30
_TAR_HEADER_BYTES = 1 << 20  # of a long name or extended header, which tarfile reads whole
_TAR_EXTENSIONS = (b"L", b"K", b"x", b"g", b"X")
# What the standard library and Arrow's codecs raise on bytes that are not what they claim to be.
BROKEN = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, KeyError, ValueError, OverflowError, RuntimeError),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive of sources may hold."""

    members: int = 200_000
    member_bytes: int = 64 << 30  # of one member, unpacked
    total_bytes: int = 256 << 30  # of all members, unpacked
    ratio: float = 200.0  # unpacked over packed, looked at beyond RATIO_FLOOR_BYTES


class Counted(io.RawIOBase):
    """A stream of at most `allowed` bytes; InvalidInput at the next one, and for bytes that do not unpack."""

    def __init__(self, stream: Any, allowed: int, what: str) -> None:
        super().__init__()
        self._stream, self._allowed, self._what = stream, allowed, what
        self._left = allowed

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, empty at the end only; all there are without a size."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self._read(_PIECE_BYTES), b""))
        return self._read(min(size, _PIECE_BYTES))

    def _read(self, size: int) -> bytes:
        # In pieces: a file allocates what it is asked for before it looks how much there is.
        try:
            data: bytes = self._stream.read(min(size, self._left + 1))
        except BROKEN as error:
            raise InvalidInput(f"{self._what} does not unpack: {error}") from None
        self._left -= len(data)
        if self._left < 0:
            raise InvalidInput(f"{self._what} unpacks to more than {self._allowed} bytes")
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive as it passes by: its stream is to be read before the next member is asked for."""

    name: str
    stream: Counted | None
    refused: str = ""  # why there is no stream


def allowed_bytes(packed_bytes: int, ratio: float, most_bytes: int) -> int:
    """How many bytes a packed stream may give."""
    return min(most_bytes, max(RATIO_FLOOR_BYTES, int(ratio * packed_bytes)))


def refuse_name(name: str) -> str:
    """Why a member's name is not one that a file below a folder could have; empty for a good name."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or name[1:2] == ":":
        return "refused: an absolute name in an archive"
    if ".." in path.parts:
        return "refused: a name that climbs out of its archive"
    if not path.parts or any(ord(char) < 32 or char == "\x7f" for char in name):
        return "refused: not a file name"
    return ""


def iterate_zip(path: Path, limits: Limits) -> Generator[Member, None, None]:
    """Files of a ZIP in the order of its directory. Raises InvalidInput when it is broken, or holds more than allowed.

    Members with absolute or climbing names, encrypted ones and links come refused.
    """
    packed_bytes = path.stat().st_size
    with path.open("rb") as stream:
        check_directory(stream, packed_bytes, limits.members)
        try:
            archive = zipfile.ZipFile(stream)
        except BROKEN as error:
            raise InvalidInput(f"not a readable ZIP: {error}") from None
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if len(infos) > limits.members:
            raise InvalidInput(f"{len(infos)} members, more than {limits.members}")
        check_zip(infos, packed_bytes, limits)
        seen: set[str] = set()
        for info in infos:
            reason = refuse_name(info.filename) or _refuse_zip_member(info, seen, limits)
            seen.add(info.filename)
            yield Member(info.filename, None, reason) if reason else _open_zip_member(archive, info)


def check_directory(stream: IO[bytes], packed_bytes: int, members: int) -> None:
    """Refuse, before zipfile reads it, a directory far larger than so many members can need."""
    stream.seek(max(0, packed_bytes - _END_RECORD_BYTES - (1 << 16)))
    tail = stream.read()
    at = tail.rfind(_END_RECORD)
    stream.seek(0)
    if at < 0 or at + _END_RECORD_BYTES > len(tail):
        raise InvalidInput("not a readable ZIP: no directory at its end")
    directory_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    large = tail.rfind(_LARGE_RECORD, 0, at)
    if directory_bytes == 0xFFFFFFFF and large >= 0:  # ZIP64 says it elsewhere
        directory_bytes = int.from_bytes(tail[large + 40 : large + 48], "little")
    if min(directory_bytes, packed_bytes) > members * _DIRECTORY_BYTES_A_MEMBER:
        raise InvalidInput(f"a directory of {directory_bytes} bytes, too large for {members} members")


def check_zip(infos: Sequence[zipfile.ZipInfo], packed_bytes: int, limits: Limits) -> None:
    """Refuse a ZIP whose directory promises too much, or whose members share bytes.

    Source: D. Fifield, "A better zip bomb", WOOT 2019.
    """
    check_total(sum(info.file_size for info in infos), packed_bytes, limits)
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise InvalidInput(f"members overlap at {info.filename[:80]!r}: a ZIP bomb")
        end = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size


def check_total(total_bytes: int, packed_bytes: int, limits: Limits) -> None:
    """Refuse what unpacks to too much, in bytes or times its own size."""
    if total_bytes > limits.total_bytes:
        raise InvalidInput(f"unpacks to more than {limits.total_bytes} bytes")
    if total_bytes > RATIO_FLOOR_BYTES and total_bytes > limits.ratio * packed_bytes:
        times = total_bytes / max(packed_bytes, 1)
        raise InvalidInput(f"unpacks to {times:.0f} times its size, more than {limits.ratio:g} times: a bomb?")


def iterate_tar(stream: IO[bytes], packed_bytes: int, limits: Limits) -> Generator[Member, None, None]:
    """Files of a TAR (already uncompressed by `stream`) in one pass. Raises InvalidInput as `iterate_zip`.

    Links and devices come refused, and so do names that are absolute or climb.
    """
    total_bytes = count = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
            while info := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps every header it has seen
                if info.isdir():
                    continue
                count, total_bytes = count + 1, total_bytes + info.size
                if count > limits.members:
                    raise InvalidInput(f"more than {limits.members} members")
                check_total(total_bytes, packed_bytes, limits)
                reason = refuse_name(info.name) or ("" if info.isreg() else "refused: a link or device in an archive")
                body = None if reason else archive.extractfile(info)
                yield Member(info.name, Counted(body, limits.member_bytes, info.name) if body else None, reason)
    except BROKEN as error:
        raise InvalidInput(f"not a readable TAR: {error}") from None


class _Header(tarfile.TarInfo):
    """A member's header that refuses extensions no name needs."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _TAR_EXTENSIONS and self.size > _TAR_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def _refuse_zip_member(info: zipfile.ZipInfo, seen: set[str], limits: Limits) -> str:
    if info.filename in seen:
        return "refused: a second member of this name"
    if info.flag_bits & 0x1:
        return "refused: encrypted"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "refused: a link or device in an archive"
    if info.file_size > limits.member_bytes:
        return f"refused: unpacks to {info.file_size} bytes, more than {limits.member_bytes}"
    return ""


def _open_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    try:
        stream = archive.open(info)
    except BROKEN as error:
        return Member(info.filename, None, f"unreadable: {error}")
    # zipfile stops at the declared size by itself, so what was checked above is what comes.
    return Member(info.filename, Counted(stream, info.file_size, info.filename))
