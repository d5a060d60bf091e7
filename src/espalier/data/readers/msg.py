"""MSG, Outlook's mail file: MAPI properties in the streams of a compound file, read through olefile.

After Microsoft's open specifications MS-OXMSG (the file), MS-OXPROPS (the properties) and MS-OXRTFCP (compressed RTF).
See `letters` for what becomes of subject, body and attachments.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.letters import Letter, write_letter
from espalier.data.readers.mail import day_of, decode_as
from espalier.data.readers.plugin import versioned
from espalier.data.readers.rtf import strip_rtf
from espalier.data.readers.source import SourceFile

MAX_ATTACHMENTS = 200
MAX_UNPACKED_BYTES = 1 << 26
# Property ids of MS-OXPROPS.
_SUBJECT, _BODY, _HTML, _RTF, _HEADERS = 0x0037, 0x1000, 0x1013, 0x1009, 0x007D
_SENT, _DELIVERED, _CODEPAGE, _INTERNET_CODEPAGE = 0x0039, 0x0E06, 0x3FFD, 0x3FDE
_ATTACHED, _LONG_NAME, _SHORT_NAME, _DISPLAY_NAME = 0x3701, 0x3707, 0x3704, 0x3001
_STRING8, _UNICODE, _BINARY, _TIME, _LONG, _OBJECT = 0x001E, 0x001F, 0x0102, 0x0040, 0x0003, 0x000D
MAX_INSIDE = 4
_RTF_START = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript "
    b"\\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n"
    b"\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)


@versioned(1)
def read_msg(source: SourceFile) -> Iterator[Document]:
    """The mail, then a document (or more) for each attachment that has a reader."""
    import olefile

    try:
        with olefile.OleFileIO(io.BytesIO(source.read_bytes())) as file:
            letter = _Message(file).letter()
    except (OSError, IndexError, ValueError, struct.error) as error:
        raise InvalidInput(f"not a readable MSG: {error}") from None
    yield from write_letter(source, letter)


class _Message:
    """One message of a compound file: the file itself, or (by the prefix of its streams) one attached to it."""

    def __init__(self, file: Any, prefix: str = "") -> None:
        self.file = file
        paths = {"/".join(path): path for path in file.listdir()}
        self.streams = {name.removeprefix(prefix): path for name, path in paths.items() if name.startswith(prefix)}
        if not any(name.startswith("__properties_version1.0") for name in self.streams):
            raise InvalidInput("not a readable MSG: there are no properties in it")
        self.prefix = prefix
        self.fixed = self._fixed("__properties_version1.0", 24 if prefix else 32)
        codepage = self.fixed.get(_INTERNET_CODEPAGE) or self.fixed.get(_CODEPAGE) or 1252
        self.charset = {65001: "utf-8", 20127: "ascii", 28591: "latin-1"}.get(codepage, f"cp{codepage}")

    def letter(self) -> Letter:
        letter = Letter(subject=self.text("", _SUBJECT), plain=self.text("", _BODY), date=self.day())
        data = self.bytes_of("", _HTML, _BINARY)
        letter.html = decode_as(data, self.charset) if data else self.text("", _HTML)
        if not letter.plain.strip() and not letter.html.strip() and (packed := self.bytes_of("", _RTF, _BINARY)):
            letter.plain = strip_rtf(unpack_rtf(packed))
        folders = sorted({name.split("/")[0] for name in self.streams if name.startswith("__attach_version1.0_#")})
        letter.attachments = [self.attachment(folder) for folder in folders[:MAX_ATTACHMENTS]]
        return letter

    def attachment(self, folder: str) -> tuple[str, bytes]:
        names = (self.text(f"{folder}/", each) for each in (_LONG_NAME, _SHORT_NAME, _DISPLAY_NAME))
        name = next(filter(None, names), "")
        inside = f"{folder}/__substg1.0_{_ATTACHED:04X}{_OBJECT:04X}/"
        if self.prefix.count("/") < MAX_INSIDE and any(each.startswith(inside) for each in self.streams):
            inner = _Message(self.file, self.prefix + inside).letter()
            return f"{name or 'message'}.txt", f"Subject: {inner.subject}\n\n{inner.plain}".encode()
        return name, self.bytes_of(f"{folder}/", _ATTACHED, _BINARY)

    def text(self, prefix: str, property_id: int) -> str:
        data = self.bytes_of(prefix, property_id, _UNICODE)
        if data:
            return data.decode("utf-16-le", "replace").rstrip("\x00")
        data = self.bytes_of(prefix, property_id, _STRING8)
        return decode_as(data, self.charset).rstrip("\x00") if data else ""

    def bytes_of(self, prefix: str, property_id: int, kind: int) -> bytes:
        path = self.streams.get(f"{prefix}__substg1.0_{property_id:04X}{kind:04X}")
        if path is None:
            return b""
        data: bytes = self.file.openstream(path).read(MAX_UNPACKED_BYTES)
        return data

    def day(self) -> str:
        for property_id in (_SENT, _DELIVERED):
            ticks = self.fixed.get(property_id, 0)  # of 100 ns since 1601
            if ticks:
                try:
                    return (datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)).date().isoformat()
                except OverflowError:
                    continue
        for line in self.text("", _HEADERS).splitlines():
            if line.lower().startswith("date:"):
                return day_of(line[5:].strip())
        return ""

    def _fixed(self, name: str, head_bytes: int) -> dict[int, int]:
        """The properties of fixed size: entries of 16 bytes after a head (MS-OXMSG 2.4)."""
        path = self.streams.get(name)
        data = self.file.openstream(path).read(1 << 20) if path else b""
        found = {}
        for at in range(head_bytes, len(data) - 15, 16):
            kind, property_id, _, value = struct.unpack_from("<HHIQ", data, at)
            if kind in (_TIME, _LONG):
                found[property_id] = value if kind == _TIME else value & 0xFFFFFFFF
        return found


def unpack_rtf(data: bytes) -> bytes:
    """RTF out of its LZ compression (MS-OXRTFCP 2.2); raises InvalidInput when it is broken."""
    if len(data) < 16:
        raise InvalidInput("not a readable MSG: its compressed RTF is cut short")
    _, size, magic, _ = struct.unpack_from("<IIII", data)
    if magic == 0x414C454D:  # "MELA": not compressed
        return data[16 : 16 + size]
    if magic != 0x75465A4C or size > MAX_UNPACKED_BYTES:
        raise InvalidInput("not a readable MSG: its compressed RTF is broken")
    window = bytearray(_RTF_START.ljust(4096, b" "))
    write, out, at = len(_RTF_START), bytearray(), 16
    while at < len(data) and len(out) < size:
        control = data[at]
        at += 1
        for bit in range(8):
            if at >= len(data) or len(out) >= size:
                break
            if not control >> bit & 1:
                taken = data[at : at + 1]
                at += 1
            else:
                if at + 1 >= len(data):
                    return bytes(out)
                token = data[at] << 8 | data[at + 1]
                at += 2
                offset, length = token >> 4, (token & 0xF) + 2
                if offset == write:
                    return bytes(out)
                for step in range(length):
                    byte = window[(offset + step) % 4096]
                    out.append(byte)
                    window[write] = byte
                    write = (write + 1) % 4096
                continue
            out += taken
            window[write] = taken[0]
            write = (write + 1) % 4096
    return bytes(out)
