"""Bringing a database to the newest schema. One that is there already is opened with one query and without alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from espalier.core.errors import Conflict
from espalier.store.database import Database
from espalier.store.tables import HEAD

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(database: Database) -> None:
    """Run what migrations are missing, one process at a time. Raises Conflict for a database of a newer Espalier."""
    with database.read() as connection:
        if _revision(connection) == HEAD:
            return
    with database.write(lock="schema") as connection:
        found = _revision(connection)
        if found == HEAD:  # another process was faster
            return
        if found > HEAD:
            raise Conflict(f"the database is at schema {found}, this Espalier knows {HEAD}", hint="upgrade Espalier")
        upgrade(connection)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run alembic up to `revision` inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""
