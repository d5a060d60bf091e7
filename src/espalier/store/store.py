"""`Store`: the parts of the store over one database and one blob store, and the transaction that spans them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from espalier.core.config import StoreConfig
from espalier.core.ports import Blobs
from espalier.store.artifacts import Artifacts
from espalier.store.audit import Audit
from espalier.store.blobs import LocalBlobs, open_blobs
from espalier.store.cache import StepCache
from espalier.store.database import Database, sqlite_url
from espalier.store.disk import storage_errors
from espalier.store.facts import FileFacts
from espalier.store.jobs import Jobs
from espalier.store.ledger import Ledger
from espalier.store.records import Records
from espalier.store.runs import Runs
from espalier.store.schema import migrate
from espalier.store.workspace import Workspace


class Store:
    """Everything a workspace remembers. Safe to share between threads."""

    def __init__(self, workspace: Workspace, database: Database, blobs: Blobs) -> None:
        self.workspace = workspace
        self.database = database
        self.blobs = blobs
        self.facts = FileFacts(database)
        self.artifacts = Artifacts(database, blobs, self.facts, workspace.artifacts)
        self.records = Records(database)
        self.runs = Runs(database, workspace)
        self.jobs = Jobs(database)
        self.audit = Audit(database)
        self.ledger = Ledger(database)
        self.cache = StepCache(database)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside commit at once, or none does. Write bytes to `blobs` before, not inside: keep it short."""
        with self.database.write():
            yield

    def close(self) -> None:
        """Close the database's connections."""
        self.database.close()


def open_store(workspace: Workspace, config: StoreConfig | None = None) -> Store:
    """The store of a workspace, its schema brought up to date. Raises InvalidInput, MissingExtra, Conflict."""
    config = config or StoreConfig()
    if not config.url:
        with storage_errors(workspace.folder):
            workspace.folder.mkdir(parents=True, exist_ok=True)
    database = Database(config.url or sqlite_url(workspace.database_file))
    try:
        migrate(database)
        blobs = open_blobs(config.blobs) if config.blobs else LocalBlobs(workspace.blobs)
    except BaseException:
        database.close()
        raise
    return Store(workspace, database, blobs)
