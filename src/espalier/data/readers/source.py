"""The source files of a dataset: found in a fixed order, confined to their root, hashed, opened uncompressed.

Knows names, sizes and bytes. Does not know formats beyond their suffixes, nor where remote files come from.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Document, Span, Spec
from espalier.data.readers.unpacked import MAX_RATIO, PACKINGS, Unpacked

MAX_WHOLE_BYTES = 256 << 20  # of a file a reader holds in memory at once
# Read in pieces, so a file of these may have any size.
STREAMED = frozenset({"csv", "json", "jsonl", "ndjson", "parquet", "tsv"})
SHORT_TARS = {".tgz": "gz", ".tbz2": "bz2", ".txz": "xz", ".tzst": "zst"}
# A file that is larger than its blocks on disk by more than any file system compresses is a hole.
SPARSE_BYTES = 64 << 20
SPARSE_RATIO = 100


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

    def dropped(self, number: int, reason: str, start: int = 0, end: int = 0) -> Document:
        """A document that stands for something in this file that could not be read."""
        return Document(self.document_id(number), "", self.span(1, start, end), {}, reason)


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
        return _matches(uri, self.include) and not _matches(uri, self.exclude)

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


def find_sources(
    root: Path,
    *,
    suffixes: Iterable[str],
    include: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    max_file_bytes: int = 1 << 26,
    cache: Path | None = None,
) -> tuple[list[SourceFile], list[SkippedFile]]:
    """The files under `root` that can be read, sorted by uri, and the others with the reason.

    `root` may be one file. Patterns match the uri, and `*` matches slashes too. Hidden files are passed over in
    silence. A symbolic link is followed only while its target stays inside the root. The second of two files with
    the same bytes is skipped. With a `cache`, members of archives are sources too.

    Raises NotFound when `root` does not exist, InvalidInput when nothing in it can be read.
    """
    selection = Selection(frozenset(suffixes), tuple(include), tuple(exclude), max_file_bytes, cache)
    found = list_sources(root, selection).settle()
    refuse_nothing(found, str(root), selection)
    return found.sources, found.skipped


def list_sources(root: Path, selection: Selection, paths: Iterable[Path] | None = None) -> Found:
    """The files under `root` (or, of those, `paths`) as they lie; raises NotFound when there is no `root`."""
    if not root.exists():
        raise NotFound(f"no file or folder {root}", hint="check `source.path`; it is relative to the recipe's folder")
    base = root if root.is_dir() else root.parent
    found = Found()
    for path in _walk(root) if paths is None else paths:
        uri = path.relative_to(base).as_posix()
        archived = selection.cache is not None and archive_kind(uri) and not _matches(uri, selection.exclude)
        if not archived and not selection.chooses(uri):
            continue
        reason = _refuse_place(path, base) or ("" if archived else selection.refuse(uri, path.stat().st_size))
        if reason:
            found.skipped.append(SkippedFile(uri=uri, reason=reason))
            continue
        try:
            source = SourceFile(path, uri, hash_file(path))
        except OSError as error:
            found.skipped.append(SkippedFile(uri=uri, reason=f"unreadable: {error.strerror or error}"))
            continue
        if archived:
            from espalier.data.readers.members import list_members

            list_members(source, selection, found)
        else:
            found.sources.append(source)
    return found


def refuse_nothing(found: Found, where: str, selection: Selection) -> None:
    """Raise InvalidInput when there is nothing to read, with the first reasons."""
    if not found.sources:
        raise InvalidInput(
            _nothing_found(found.skipped), where=where, hint=_looked_for(selection.suffixes, selection.include)
        )


def list_files(root: Path, include: Iterable[str] = ("*",), exclude: Iterable[str] = ()) -> list[Path]:
    """Every regular file that the patterns choose, readable or not: what a build's outcome depends on."""
    base, wanted, unwanted = (root if root.is_dir() else root.parent), tuple(include), tuple(exclude)
    uris = ((path, path.relative_to(base).as_posix()) for path in _walk(root) if path.is_file())
    return [path for path, uri in uris if _matches(uri, wanted) and not _matches(uri, unwanted)]


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


def _walk(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        paths += [Path(folder, name) for name in (*names, *links) if not name.startswith(".")]
    yield from sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def _matches(uri: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(uri, pattern) for pattern in patterns)


def _refuse_place(path: Path, base: Path) -> str:
    try:
        inside = not path.is_symlink() or path.resolve().is_relative_to(base.resolve())
    except (RuntimeError, OSError):  # Python 3.11 and 3.12 say RuntimeError
        return "refused: symbolic links that lead to each other"
    if not inside:
        return "refused: a symbolic link that leads out of the source folder"
    if path.is_dir():
        return "refused: a symbolic link to a folder; its files are read where they lie"
    if not path.is_file():
        return "refused: not a regular file"
    status = path.stat()
    if status.st_size > SPARSE_BYTES and status.st_blocks * 512 * SPARSE_RATIO < status.st_size:
        return f"refused: a sparse file, {status.st_size} bytes of which {status.st_blocks * 512} are on disk"
    return ""


def _nothing_found(skipped: list[SkippedFile]) -> str:
    if not skipped:
        return "nothing to read: there is no matching file"
    shown = "; ".join(f"{item.uri}: {item.reason}" for item in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"nothing to read among {len(skipped)} files ({shown}{more})"


def _looked_for(known: Iterable[str], wanted: tuple[str, ...]) -> str:
    return (
        f"looked for files ending in {', '.join('.' + name for name in sorted(known))} that match {', '.join(wanted)}"
    )
