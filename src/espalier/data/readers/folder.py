"""The source files below a folder: found in a fixed order, confined to it, hashed; archives among them looked into.

Does not know formats, nor remote places.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.readers.members import list_members
from espalier.data.readers.source import (
    Found,
    Selection,
    SkippedFile,
    SourceFile,
    archive_kind,
    hash_file,
    matches,
)

# A file that is larger than its blocks on disk by more than any file system compresses is a hole.
SPARSE_BYTES = 64 << 20
SPARSE_RATIO = 100


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
    for path in _walk(root, found.skipped) if paths is None else paths:
        uri = path.relative_to(base).as_posix()
        archived = selection.cache is not None and archive_kind(uri) and not matches(uri, selection.exclude)
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
    uris = ((path, path.relative_to(base).as_posix()) for path in _walk(root, []) if path.is_file())
    return [path for path, uri in uris if matches(uri, wanted) and not matches(uri, unwanted)]


def _walk(root: Path, closed: list[SkippedFile]) -> Iterator[Path]:
    """Everything below `root`, sorted; a folder that may not be looked into is added to `closed`."""
    if not root.is_dir():
        yield root
        return

    def report(error: OSError) -> None:
        uri = f"{Path(error.filename).relative_to(root).as_posix()}/"
        closed.append(SkippedFile(uri=uri, reason=f"unreadable: {error.strerror or error}"))

    paths = []
    for folder, folders, names in os.walk(root, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        paths += [Path(folder, name) for name in (*names, *links) if not name.startswith(".")]
    yield from sorted(paths, key=lambda path: path.relative_to(root).as_posix())


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
    endings = ", ".join(f".{name}" for name in sorted(known))
    return f"looked for files that match {', '.join(wanted)} and end in {endings}"
