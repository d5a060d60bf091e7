"""What a source file is: its name, its digest, its bytes uncompressed; and which are wanted.

Knows names, sizes and bytes. Does not know formats beyond their suffixes, nor where files are looked for.
"""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from espalier.core.errors import InvalidInput
from espalier.core.types import Span, Spec
from espalier.data.readers.unpacked import MAX_RATIO, PACKINGS, Unpacked

MAX_WHOLE_BYTES = 256 << 20  # of a file a reader holds in memory at once
# Read in pieces, so a file of these may have any size.
STREAMED = frozenset({"csv", "json", "jsonl", "ndjson", "parquet", "tsv"})
SHORT_TARS = {".tgz": "gz", ".tbz2": "bz2", ".txz": "xz", ".tzst": "zst"}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read. `uri` is its path relative to the source root, with forward slashes.

    A member of an archive is `archive.zip!/path/in.txt`; its `path` is then a file of the cache.
    """

    path: Path
    uri: str
    sha256: str  # of the bytes as they lie on disk, compressed where they are
    licence: str = ""  # where the place it came from says so

    @property
    def packing(self) -> str:
        """The compression: gz, bz2, xz, zst, or empty."""
        return packing_of(self.uri)

    def open(self, ratio: float = MAX_RATIO) -> Unpacked:
        """The bytes, uncompressed, as a stream. It raises InvalidInput where they do not unpack or give too much."""
        return Unpacked(self.path, self.packing, ratio, self.uri)

    def read_bytes(self, max_bytes: int = MAX_WHOLE_BYTES) -> bytes:
        """All bytes, uncompressed; raises InvalidInput where there are more than `max_bytes`."""
        if not self.packing and self.path.stat().st_size > max_bytes:
            raise InvalidInput(f"more than {max_bytes} bytes", hint="split the file")
        with self.open() as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise InvalidInput(f"more than {max_bytes} bytes uncompressed", hint="split the file")
        return data

    def document_id(self, number: int) -> str:
        """The id of this file's `number`-th document (from 1): the same bytes give the same ids wherever they lie."""
        return f"{self.sha256[:16]}.{number}"

    def span(self, page: int = 1, start: int = 0, end: int = 0) -> Span:
        """A stretch of this file."""
        return Span(self.sha256, self.uri, page, start, end)


class SkippedFile(Spec):
    """A file that gave no document, and why."""

    uri: str
    reason: str
    sha256: str = ""


@dataclass(slots=True)
class Found:
    """Files of one or several places, before equal ones are left out."""

    sources: list[SourceFile] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)

    def below(self, prefix: str) -> Found:
        """The same with `prefix` before each uri."""
        skipped = [item.model_copy(update={"uri": prefix + item.uri}) for item in self.skipped]
        return Found([replace(source, uri=prefix + source.uri) for source in self.sources], skipped)

    def settle(self) -> Found:
        """Sorted by uri; of files with the same bytes the first one stays.

        Raises InvalidInput when two files have one uri.
        """
        settled = Found(skipped=list(self.skipped))
        first_with: dict[str, str] = {}
        uris: set[str] = set()
        for source in sorted(self.sources, key=lambda source: source.uri):
            if source.uri in uris:
                raise InvalidInput(f"two sources are called {source.uri}", hint="rename one of the folders")
            uris.add(source.uri)
            if source.sha256 in first_with:
                reason = f"same bytes as {first_with[source.sha256]}"
                settled.skipped.append(SkippedFile(uri=source.uri, reason=reason, sha256=source.sha256))
                continue
            first_with[source.sha256] = source.uri
            settled.sources.append(source)
        settled.skipped.sort(key=lambda item: item.uri)
        return settled


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of the files that lie somewhere are wanted, and where members of archives are kept."""

    suffixes: frozenset[str]
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    max_file_bytes: int = 1 << 26
    cache: Path | None = None  # without one, archives have no reader
    max_ratio: float = MAX_RATIO  # of an archive, unpacked over packed

    def chooses(self, uri: str) -> bool:
        """Whether the patterns want it; `*` matches slashes too."""
        return matches(uri, self.include) and not matches(uri, self.exclude)

    def refuse(self, uri: str, size_bytes: int) -> str:
        """Why a file of this name and size is not read; empty when it is."""
        suffix = suffix_of(uri)
        if suffix not in self.suffixes:
            return f"no reader for .{suffix}" if suffix else "no reader for a file without a suffix"
        if size_bytes == 0:
            return "unreadable: the file is empty"
        if size_bytes > self.max_file_bytes and suffix not in STREAMED:
            return f"refused: {size_bytes} bytes, more than max_file_bytes ({self.max_file_bytes})"
        return ""


def hash_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def suffix_of(uri: str) -> str:
    """The lower-case last suffix without its dot, that of a compression left out; empty when there is none."""
    name = PurePosixPath(uri)
    packing = packing_of(uri)
    return PurePosixPath(name.stem if packing else name.name).suffix.lower().removeprefix(".")


def archive_kind(uri: str) -> str:
    """zip or tar where the name is an archive's; else empty. Office files and the like are documents, not archives."""
    name = uri.lower()
    if name.endswith(".zip"):
        return "zip"
    return "tar" if suffix_of(name) == "tar" or PurePosixPath(name).suffix in SHORT_TARS else ""


def packing_of(uri: str) -> str:
    """The compression a name ends in: gz, bz2, xz, zst, or empty. `.tgz` and its like are archives, not this."""
    suffix = PurePosixPath(uri).suffix.lower().removeprefix(".")
    return suffix if suffix in PACKINGS else ""


def matches(uri: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns fits; `*` fits slashes too."""
    return any(fnmatch.fnmatchcase(uri, pattern) for pattern in patterns)
