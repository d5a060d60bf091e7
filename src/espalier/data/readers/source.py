"""The source files of a dataset: found in a fixed order, confined to their root, hashed.

Knows names, sizes and bytes. Does not know formats beyond their suffixes.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Document, Span, Spec


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read. `uri` is its path relative to the source root, with forward slashes."""

    path: Path
    uri: str
    sha256: str

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


def find_sources(
    root: Path,
    *,
    suffixes: Iterable[str],
    include: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    max_file_bytes: int = 1 << 26,
) -> tuple[list[SourceFile], list[SkippedFile]]:
    """The files under `root` that can be read, sorted by uri, and the others with the reason.

    `root` may be one file. Patterns match the uri, and `*` matches slashes too. Hidden files are passed over in
    silence. A symbolic link is followed only while its target stays inside the root. The second of two files with
    the same bytes is skipped.

    Raises NotFound when `root` does not exist, InvalidInput when nothing in it can be read.
    """
    if not root.exists():
        raise NotFound(f"no file or folder {root}", hint="check `source.path`; it is relative to the recipe's folder")
    base = root if root.is_dir() else root.parent
    known, wanted, unwanted = set(suffixes), tuple(include), tuple(exclude)
    found: list[SourceFile] = []
    skipped: list[SkippedFile] = []
    first_with: dict[str, str] = {}
    for path in _walk(root):
        uri = path.relative_to(base).as_posix()
        if not _matches(uri, wanted) or _matches(uri, unwanted):
            continue
        reason = _refuse(path, base, known, max_file_bytes)
        if reason:
            skipped.append(SkippedFile(uri=uri, reason=reason))
            continue
        try:
            digest = hash_file(path)
        except OSError as error:
            skipped.append(SkippedFile(uri=uri, reason=f"unreadable: {error.strerror or error}"))
            continue
        if digest in first_with:
            skipped.append(SkippedFile(uri=uri, reason=f"same bytes as {first_with[digest]}", sha256=digest))
            continue
        first_with[digest] = uri
        found.append(SourceFile(path, uri, digest))
    if not found:
        raise InvalidInput(_nothing_found(root, skipped), where=str(root), hint=_looked_for(known, wanted))
    return found, skipped


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
    """The lower-case last suffix without its dot; empty when there is none."""
    return Path(uri).suffix.lower().removeprefix(".")


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


def _refuse(path: Path, base: Path, known: set[str], max_file_bytes: int) -> str:
    if path.is_symlink() and not path.resolve().is_relative_to(base.resolve()):
        return "refused: a symbolic link that leads out of the source folder"
    if path.is_dir():
        return "refused: a symbolic link to a folder; its files are read where they lie"
    if not path.is_file():
        return "refused: not a regular file"
    suffix = suffix_of(path.name)
    if suffix not in known:
        return f"no reader for .{suffix}" if suffix else "no reader for a file without a suffix"
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        return "unreadable: the file is empty"
    if size_bytes > max_file_bytes:
        return f"refused: {size_bytes} bytes, more than max_file_bytes ({max_file_bytes})"
    return ""


def _nothing_found(root: Path, skipped: list[SkippedFile]) -> str:
    if not skipped:
        return "nothing to read: the folder holds no matching file" if root.is_dir() else "nothing to read"
    shown = "; ".join(f"{item.uri}: {item.reason}" for item in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"nothing to read among {len(skipped)} files ({shown}{more})"


def _looked_for(known: set[str], wanted: tuple[str, ...]) -> str:
    return (
        f"looked for files ending in {', '.join('.' + name for name in sorted(known))} that match {', '.join(wanted)}"
    )
