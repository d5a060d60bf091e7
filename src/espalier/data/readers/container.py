"""Zip packages (DOCX, PPTX, XLSX, ODF, EPUB) opened within limits, and their XML parsed without entities.

Sizes are counted as bytes come out, never taken from the package's own directory, which can lie. Nothing is unpacked to
disk and member names are never used as paths. Does not know what the members mean.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from espalier.core.errors import InvalidInput

_BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, RuntimeError, zlib.error, OSError, ValueError)
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a package may hold."""

    members: int = 20_000
    member_bytes: int = 1 << 26
    total_bytes: int = 1 << 28
    ratio: int = 400  # unpacked over packed, looked at from `free_bytes` on; XML of a large sheet reaches 100
    free_bytes: int = 1 << 22


LIMITS = Limits()


@dataclass(slots=True)
class Package:
    """An open package; what is read from it counts against its limits."""

    archive: zipfile.ZipFile
    what: str
    limits: Limits
    names: frozenset[str] = frozenset()
    taken_bytes: int = field(default=0)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def read(self, name: str) -> bytes:
        """A member's bytes; raises InvalidInput when it is absent, broken or too large."""
        return b"".join(self.stream(name))

    def stream(self, name: str) -> Iterator[bytes]:
        """A member's bytes in pieces, as `read`."""
        if name not in self.names:
            raise InvalidInput(f"not a readable {self.what}: there is no {name} in it")
        info = self.archive.getinfo(name)
        size = 0
        try:
            with self.archive.open(info) as member:
                while piece := member.read(_PIECE_BYTES):
                    size += len(piece)
                    self._count(len(piece), size, max(1, info.compress_size))
                    yield piece
        except _BROKEN as error:
            raise InvalidInput(f"not a readable {self.what}: {error}") from None

    def xml(self, name: str) -> Any:
        """A member's root element (lxml)."""
        return parse_xml(self.read(name), self.what)

    def verify(self) -> None:
        """Unpack every member and throw it away: for a parser that opens the file again and knows no limits."""
        for name in sorted(self.names):
            for _ in self.stream(name):
                pass

    def _count(self, piece: int, size: int, packed: int) -> None:
        self.taken_bytes += piece
        limits = self.limits
        if size > limits.member_bytes:
            raise InvalidInput(f"unpacks to more than {limits.member_bytes} bytes", hint="split the file")
        if self.taken_bytes > limits.total_bytes:
            raise InvalidInput(f"unpacks to more than {limits.total_bytes} bytes in all", hint="split the file")
        if size > limits.free_bytes and size > limits.ratio * packed:
            raise InvalidInput(f"unpacks to more than {limits.ratio} times its size (a zip bomb?)")


@contextmanager
def open_zip(file: Path | BinaryIO, what: str, limits: Limits | None = None) -> Iterator[Package]:
    """The package in `file`; `what` names the format in errors. Raises InvalidInput when it is none or is encrypted."""
    limits = limits or LIMITS
    try:
        archive = zipfile.ZipFile(file)
    except _BROKEN as error:
        raise InvalidInput(f"not a readable {what}: {error}") from None
    with archive:
        infos = archive.infolist()
        if len(infos) > limits.members:
            raise InvalidInput(f"{len(infos)} members, more than {limits.members}")
        if any(info.flag_bits & 1 for info in infos):
            raise InvalidInput("encrypted: it needs a password", hint="save it without a password")
        yield Package(archive, what, limits, frozenset(info.filename for info in infos))


def parse_xml(data: bytes, what: str) -> Any:
    """The root element (lxml): no entity expanded, no DTD loaded, nothing fetched; libxml2 bounds depth and size.

    Raises InvalidInput when it is no XML.
    """
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise InvalidInput(f"not a readable {what}: {error}") from None


def local_name(element: Any) -> str:
    """The tag without its namespace; empty for what is no element.

    The strict and the transitional dialect of OOXML differ in namespaces only, and so do versions of ODF.
    """
    tag = element.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def attribute(element: Any, name: str) -> str:
    """An attribute by its local name; empty when there is none."""
    value: str | None = element.get(name)
    if value is not None:
        return value
    for key, found in element.attrib.items():
        if key.rsplit("}", 1)[-1] == name:
            return str(found)
    return ""


def child(element: Any, *names: str) -> Any:
    """The first child by local name, then its child and so on; None when there is none."""
    for name in names:
        if element is None:
            return None
        element = next((each for each in element if local_name(each) == name), None)
    return element
