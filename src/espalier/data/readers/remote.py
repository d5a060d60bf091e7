"""Remote files, each fetched once into a cache folder under its digest; one that did not change is not fetched again.

Knows nothing of protocols: `objects`, `web` addresses and `hub` say how a file is opened and what its stamp is.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput, NotFound, PermissionDenied
from espalier.core.ids import canonical_json
from espalier.data.flow.files import mark_used
from espalier.data.readers.archive import Counted
from espalier.data.readers.members import blob_path, keep_stream, list_members
from espalier.data.readers.source import Found, Selection, SkippedFile, SourceFile, archive_kind
from espalier.store.disk import write_file

MAX_FETCH_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A remote file in the cache. `stamp` is what the server says changes with it (ETag ...), empty for nothing."""

    sha256: str
    size_bytes: int
    stamp: str
    kind: str = ""  # its media type, where the server says so


def look_up(cache: Path, url: str) -> Kept | None:
    """What was kept of a URL, if its bytes are still there."""
    path = _note_path(cache, url)
    if not mark_used(path):
        return None
    kept = Kept(**json.loads(path.read_bytes()))
    return kept if mark_used(blob_path(cache, kept.sha256)) else None


def keep(cache: Path, url: str, stream: Any, stamp: str, max_bytes: int, kind: str = "") -> Kept:
    """Fetch a stream into the cache. Raises InvalidInput when it gives too much, or takes too long."""
    sha256, size_bytes = keep_stream(Counted(_Timed(stream), max_bytes, url), cache)
    kept = Kept(sha256, size_bytes, stamp, kind)
    told = {"sha256": sha256, "size_bytes": size_bytes, "stamp": stamp, "kind": kind}
    write_file(_note_path(cache, url), canonical_json(told))
    return kept


def add_fetched(found: Found, uri: str, selection: Selection, fetch: Callable[[], Kept]) -> None:
    """Fetch a file that is wanted and add it, or its members where it is an archive, to `found`."""
    if selection.cache is None:
        raise InvalidInput("remote files need a cache folder", where=uri)
    archived = bool(archive_kind(uri))
    if not archived and not selection.chooses(uri):
        return
    reason = "" if archived else selection.refuse(uri, 1)
    kept = None
    if not reason:
        try:
            kept = fetch()
            reason = "" if archived else selection.refuse(uri, kept.size_bytes)
        except (InvalidInput, NotFound, PermissionDenied) as error:
            reason = f"unreadable: {error.message}"
    if kept is None or reason:
        found.skipped.append(SkippedFile(uri=uri, reason=reason, sha256=kept.sha256 if kept else ""))
        return
    source = SourceFile(blob_path(selection.cache, kept.sha256), uri, kept.sha256)
    if archived:
        list_members(source, selection, found)
    else:
        found.sources.append(source)


def _note_path(cache: Path, url: str) -> Path:
    return cache / "remote" / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


class _Timed:
    """A stream that must end in time: a server that sends a byte a minute never trips a socket's timeout."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._deadline = time.monotonic() + MAX_FETCH_S

    def read(self, size: int) -> bytes:
        if time.monotonic() > self._deadline:
            raise InvalidInput(f"fetching took more than {MAX_FETCH_S:g} s")
        data: bytes = self._stream.read(size)
        return data

    def close(self) -> None:
        self._stream.close()
