"""Members of archives as sources: each kept once in a cache folder under its digest, archives in archives too.

An archive that was listed before is not unpacked again. Does not know what members mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import IO, Any

from espalier.core.errors import InvalidInput, StorageFull
from espalier.core.ids import canonical_json
from espalier.data.flow.files import mark_used
from espalier.data.readers.archive import Limits, Member, iterate_tar, iterate_zip
from espalier.data.readers.source import (
    SHORT_TARS,
    Found,
    Selection,
    SkippedFile,
    SourceFile,
    archive_kind,
    packing_of,
)
from espalier.data.readers.unpacked import Unpacked
from espalier.store.disk import temporary_file, write_all, write_file

MAX_DEPTH = 2  # an archive, and archives in it
_PIECE_BYTES = 1 << 20
_LAYOUT = 1


def list_members(archive: SourceFile, selection: Selection, found: Found, depth: int = 1) -> None:
    """Add the archive's members to `found`; what is not read goes to its `skipped`, the archive itself too."""
    cache = selection.cache
    if cache is None:
        raise InvalidInput("an archive needs a cache folder", where=archive.uri)
    try:
        rows = _load_or_keep(archive, selection, cache)
    except StorageFull:
        raise
    except (InvalidInput, OSError) as error:
        reason = f"unreadable: {error.message if isinstance(error, InvalidInput) else error}"
        found.skipped.append(SkippedFile(uri=archive.uri, reason=reason, sha256=archive.sha256))
        return
    for name, sha256, reason in rows:
        uri = f"{archive.uri}!/{name}"
        nested = not reason and archive_kind(name)
        if nested and depth >= MAX_DEPTH:
            reason = f"refused: archives nested more than {MAX_DEPTH} deep"
        if reason and (selection.chooses(uri) or nested):
            found.skipped.append(SkippedFile(uri=uri, reason=reason, sha256=sha256))
        elif nested:
            list_members(SourceFile(blob_path(cache, sha256), uri, sha256), selection, found, depth + 1)
        elif not reason and selection.chooses(uri):
            found.sources.append(SourceFile(blob_path(cache, sha256), uri, sha256, archive.licence))


def blob_path(cache: Path, sha256: str) -> Path:
    """Where the cache keeps bytes of this digest."""
    return cache / "blobs" / sha256[:2] / sha256[2:]


def keep_stream(stream: IO[bytes] | Any, cache: Path) -> tuple[str, int]:
    """Copy a stream into the cache; (sha256, size in bytes). Raises what the stream raises, and StorageFull."""
    hasher, size_bytes = hashlib.sha256(), 0
    with temporary_file(cache / "blobs") as (descriptor, temporary):
        while piece := stream.read(_PIECE_BYTES):
            hasher.update(piece)
            size_bytes += len(piece)
            write_all(descriptor, piece)
        target = blob_path(cache, hasher.hexdigest())
        target.parent.mkdir(exist_ok=True)
        temporary.replace(target)
    return hasher.hexdigest(), size_bytes


def _load_or_keep(archive: SourceFile, selection: Selection, cache: Path) -> list[tuple[str, str, str]]:
    """(name, sha256, why it is not read) of each member; one that is read is in the cache."""
    limits = Limits(ratio=selection.max_ratio)
    told = [_LAYOUT, archive.sha256, asdict(limits), sorted(selection.suffixes), selection.max_file_bytes]
    index = cache / "archives" / f"{hashlib.sha256(canonical_json(told)).hexdigest()}.json"
    if mark_used(index):
        rows = [(name, sha256, reason) for name, sha256, reason in json.loads(index.read_bytes())]
        if all(reason or mark_used(blob_path(cache, sha256)) for _, sha256, reason in rows):
            return rows
    rows = []
    with closing(_iterate(archive, limits)) as members:
        for member in members:
            if not _is_hidden(member.name):
                rows.append(_keep(member, selection, cache))
    write_file(index, canonical_json(rows))
    return rows


def _iterate(archive: SourceFile, limits: Limits) -> Generator[Member, None, None]:
    if archive_kind(archive.uri) == "zip":
        yield from iterate_zip(archive.path, limits)
        return
    packing = packing_of(archive.uri) or SHORT_TARS.get(PurePosixPath(archive.uri).suffix.lower(), "")
    with Unpacked(archive.path, packing, limits.ratio, archive.uri) as stream:
        yield from iterate_tar(stream, stream.size_bytes, limits)  # type: ignore[arg-type]


def _keep(member: Member, selection: Selection, cache: Path) -> tuple[str, str, str]:
    reason = member.refused
    if not reason and not archive_kind(member.name):
        reason = selection.refuse(member.name, 1)
    if reason or member.stream is None:
        return member.name, "", reason
    try:
        sha256, size_bytes = keep_stream(member.stream, cache)
    except InvalidInput as error:
        return member.name, "", f"unreadable: {error.message}"
    return member.name, sha256, "" if archive_kind(member.name) else selection.refuse(member.name, size_bytes)


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part.startswith(".") and part not in (".", "..") for part in parts) or "__MACOSX" in parts
