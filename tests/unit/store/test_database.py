"""What goes wrong with a database is said in words a user can act on, and nothing half-done stays."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from espalier.core.config import StoreConfig
from espalier.core.errors import Conflict, InvalidInput, NotFound, StorageFull
from espalier.core.types import Spec
from espalier.store.database import Database, sqlite_url
from espalier.store.store import Store, open_store
from espalier.store.workspace import Workspace


class Note(Spec):
    words: str


def test_a_database_that_cannot_grow_says_so_and_keeps_what_it_had(store: Store) -> None:
    store.records.put("note", "before", Note(words="a"))
    with pytest.raises(StorageFull), store.database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        store.records.put("note", "small", Note(words="b"))
        store.records.put("note", "large", Note(words="c" * 1_000_000))
    store.close()  # the limit is the connection's
    assert store.records.has("note", "before")
    assert not store.records.has("note", "small")


def test_after_a_full_disk_nothing_more_is_written_in_that_transaction(store: Store) -> None:
    with pytest.raises(Exception, match=r"(?i)invalid|closed|rolled back|full|grow"), store.transaction():
        with store.database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageFull):
            store.records.put("note", "large", Note(words="c" * 1_000_000))
        store.records.put("note", "after", Note(words="written as if nothing had happened"))
    store.close()
    assert not store.records.has("note", "after")
    assert store.records.next_version("x", "y") == 1


def test_the_database_is_in_wal_mode_and_holds_foreign_keys(store: Store) -> None:
    with store.database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 1, "busy_timeout": 30000}


def test_a_writer_waits_for_the_one_before_and_then_sees_what_it_wrote(store: Store) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction():
            store.records.next_version("x", "y")
            inside.set()
            go_on.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(30)
    threading.Timer(0.2, go_on.set).start()
    assert store.records.next_version("x", "y") == 2
    holder.join()


def test_a_file_that_is_no_database_is_left_as_it_is(workspace: Workspace) -> None:
    workspace.database_file.write_bytes(b"not a database, but somebody's work " * 100)
    with pytest.raises(Exception, match="not a database"):
        open_store(workspace)
    assert workspace.database_file.read_bytes().startswith(b"not a database")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "nowhere" / "x.db"))
    with pytest.raises(NotFound, match="cannot be opened"), database.read():
        pass


def test_a_server_that_does_not_answer_is_named_with_what_to_check(workspace: Workspace, tmp_path: Path) -> None:
    url = f"postgresql+psycopg://me@/x?host={tmp_path}"
    with pytest.raises(NotFound, match="no database answers") as caught:
        open_store(workspace, StoreConfig(url=url))
    assert "store.url" in caught.value.hint


def test_other_databases_are_refused(workspace: Workspace) -> None:
    with pytest.raises(InvalidInput):
        open_store(workspace, StoreConfig(url="sqlserver://x"))


def test_a_trigger_speaks_through_any_client(store: Store) -> None:
    store.audit.append("ann", "x.y", "z")
    with sqlite3.connect(store.workspace.database_file) as other, pytest.raises(sqlite3.IntegrityError):
        other.execute("DELETE FROM audit")
    other.close()
    with pytest.raises(Conflict), store.database.write() as connection:
        connection.exec_driver_sql("UPDATE audit SET actor = 'eve'")
    store.audit.verify()
