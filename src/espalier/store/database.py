"""One database, SQLite or PostgreSQL, with the same promises on both: atomic, serialised where a lock is named.

`write()` is a transaction that joins the one around it, so that several parts of the store commit at once. SQLite
runs in WAL mode with `synchronous=NORMAL`: kill -9 loses nothing; a power cut may undo the last transactions but
tears none. Knows no table.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from espalier.core.errors import (
    Conflict,
    DigestMismatch,
    EspalierError,
    InvalidInput,
    MissingExtra,
    NotFound,
    PermissionDenied,
    StorageFull,
)
from espalier.core.ids import canonical_json

_BUSY_TIMEOUT_S = 30
_BUSY_PAUSE_S = 0.02
_PRAGMAS = (f"busy_timeout={_BUSY_TIMEOUT_S * 1000}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
_BEGIN = "espalier_begin"  # execution option: how a SQLite transaction opens


class Database:
    """Connections to the database at `url`; safe to share between threads, and between tasks of an event loop."""

    def __init__(self, url: str) -> None:
        self._engine = _connect(url)
        self._writer = self._engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        # A task or thread sees only the transaction it opened itself.
        self._current: ContextVar[Connection | None] = ContextVar("espalier_transaction", default=None)

    @property
    def is_postgres(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; inside `write()`, that transaction's own."""
        current = self._current.get()
        if current is not None:
            yield current
            return
        with _database_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, lock: str = "") -> Iterator[Connection]:
        """A transaction: all of it on leaving, nothing on an error. A nested one joins; its error undoes its own part.

        Two writers that name the same `lock` run one after the other (SQLite has one writer anyway; PostgreSQL takes an
        advisory lock), so what was read inside stays true until the commit.
        """
        current = self._current.get()
        if current is not None:
            self._lock(current, lock)
            with _database_errors(), _savepoint(current):
                yield current
            return
        with _database_errors(), self._writer.begin() as connection:
            self._lock(connection, lock)
            token = self._current.set(connection)
            try:
                yield connection
            finally:
                self._current.reset(token)

    def close(self) -> None:
        """Close pooled connections; the object may be used again and then opens new ones."""
        self._engine.dispose()

    def _lock(self, connection: Connection, name: str) -> None:
        if name and self.is_postgres:
            number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    savepoint = connection.begin_nested()
    try:
        yield
    except BaseException:
        try:
            savepoint.rollback()
        except OperationalError:
            # A full disk makes SQLite undo the whole transaction, savepoints and all. Who catches the error must not
            # go on writing as if one were open: the connection is of no use until the outer part has ended.
            connection.invalidate()
        raise
    savepoint.commit()


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


def _connect(url: str) -> Engine:
    try:
        engine = create_engine(url, json_serializer=_to_json, pool_size=8, max_overflow=56, pool_timeout=60)
    except (ArgumentError, NoSuchModuleError):
        shown = url.split("@")[-1]  # never the password
        raise InvalidInput(f"{shown!r} is no database URL", hint="write postgresql+psycopg://user@host/name") from None
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the database needs {error.name}", hint="pip install 'espalier[postgres]'") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name != "postgresql":
        raise InvalidInput(f"{make_url(url).drivername} is not supported", hint="use SQLite or PostgreSQL")
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves (docs.sqlalchemy.org: pysqlite transactions)
    for pragma in _PRAGMAS:
        _set_pragma(connection, pragma)


def _set_pragma(connection: Any, pragma: str) -> None:
    """Run a PRAGMA, waiting where SQLite does not: it gives up at once when a new file is switched to WAL by two."""
    until_s = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until_s:
                raise
            time.sleep(_BUSY_PAUSE_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _to_json(value: Any) -> str:
    return canonical_json(value).decode()


@contextmanager
def _database_errors() -> Iterator[None]:
    """The driver's errors that a user can do something about, in our words."""
    try:
        yield
    except OperationalError as error:
        raise _translate(error) or error from error
    except DBAPIError as error:
        if "append-only" in str(error.orig):
            raise Conflict(f"{error.orig}".split("\n")[0], hint="records are never changed; write a new one") from error
        if "not a database" in str(error.orig) or "malformed" in str(error.orig):
            raise DigestMismatch(
                f"the database file is damaged: {error.orig}", hint="put a backup of .espalier/espalier.db in its place"
            ) from error
        raise


def _translate(error: OperationalError) -> EspalierError | None:
    said = str(error.orig).split("\n")[0]
    if "is full" in said or "No space left" in said:
        return StorageFull(f"the database cannot grow: {said}", hint="free some space and run the same command again")
    if "disk I/O error" in said:  # SQLite's word for any write the system refused, a quota among them
        return StorageFull(f"the database cannot be written: {said}", hint="check free space, quota and the disk")
    if "locked" in said:
        return Conflict(
            f"the database stayed locked for {_BUSY_TIMEOUT_S} s", hint="is another process writing? try again"
        )
    if "readonly" in said:
        return PermissionDenied(f"the database may not be written: {said}", hint="check the owner of .espalier/")
    if "unable to open" in said:
        return NotFound(f"the database cannot be opened: {said}", hint="check the path and its folder's mode")
    if "connection" in said and ("refused" in said or "failed" in said):
        return NotFound(f"no database answers: {said}", hint="check store.url, and that the server runs")
    return None
