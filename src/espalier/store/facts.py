"""What is known of a file while its size, time and inode stay the same: its digest, or what a caller derives from it.

Hashing 300 tickets or parsing 100 modules again on every run would cost more than the run. A file changed within the
second before it was looked at is not remembered: another write could leave its time as it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, select

from espalier.store.blobs import hash_file
from espalier.store.database import Database
from espalier.store.tables import file_facts

_SETTLED_NS = 1_000_000_000
_SLICE = 400  # parameters per query


class FileFacts:
    """A memo over (path, size, mtime, inode)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def digests(self, paths: Iterable[Path]) -> dict[Path, str]:
        """sha256 of every file's content. Raises OSError for one that is not there."""
        return self.derive("sha256", paths, hash_file)

    def derive(self, fact: str, paths: Iterable[Path], find: Callable[[Path], Any]) -> dict[Path, Any]:
        """`find(path)`, a JSON value named `fact`, for every path; from memory where the file has not changed."""
        wanted = {str(path): path for path in paths}
        settled_ns = time.time_ns() - _SETTLED_NS  # by the time now: `find` may take long
        stats = {name: path.stat() for name, path in wanted.items()}
        known = self._recall(fact, stats)
        fresh = {name: find(wanted[name]) for name in wanted if name not in known}
        self._remember(fact, fresh, stats, settled_ns)
        return {path: known[name] if name in known else fresh[name] for name, path in wanted.items()}

    def _recall(self, fact: str, stats: Mapping[str, os.stat_result]) -> dict[str, Any]:
        names, found = list(stats), {}
        query = select(file_facts).where(file_facts.c.fact == fact)
        with self._database.read() as connection:
            for start in range(0, len(names), _SLICE):
                part = names[start : start + _SLICE]
                for row in connection.execute(query.where(file_facts.c.path.in_(part))):
                    now = stats[row.path]
                    if (row.size_bytes, row.mtime_ns, row.inode) == (now.st_size, now.st_mtime_ns, now.st_ino):
                        found[row.path] = row.value
        return found

    def _remember(
        self, fact: str, fresh: Mapping[str, Any], stats: Mapping[str, os.stat_result], settled_ns: int
    ) -> None:
        rows = [
            {
                "path": name,
                "fact": fact,
                "size_bytes": stats[name].st_size,
                "mtime_ns": stats[name].st_mtime_ns,
                "inode": stats[name].st_ino,
                "value": value,
            }
            for name, value in fresh.items()
            if stats[name].st_mtime_ns < settled_ns
        ]
        if not rows:
            return
        here = and_(file_facts.c.path == bindparam("old_path"), file_facts.c.fact == fact)
        with self._database.write(lock="file_facts") as connection:
            connection.execute(delete(file_facts).where(here), [{"old_path": row["path"]} for row in rows])
            connection.execute(insert(file_facts), rows)
