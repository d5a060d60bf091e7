"""The tables, as one SQLAlchemy metadata. A change here needs a migration: a test compares the two.

Times are integer milliseconds, money integer nano-USD, digests sha256 in hex. `entries`, `audit` and `records` are
append-only: triggers in the database refuse an update or a delete.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, MetaData, Table, Text, UniqueConstraint

HEAD = "0001"  # the newest migration; a database that says so is opened without importing alembic

metadata = MetaData()

_SERIAL = BigInteger().with_variant(Integer, "sqlite")


def _text(name: str, default: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=default)


def _integer(name: str, default: str | None = None) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=default)


artifacts = Table(
    "artifacts",
    metadata,
    Column("digest", Text, primary_key=True),
    _text("kind"),
    Column("files", JSON, nullable=False),
    Column("meta", JSON, nullable=False),
    _text("made_by"),
    _integer("size_bytes"),
    _integer("created_ms"),
)

# Lineage: `child` was made from `parent`, which was given to its step as input `role`.
edges = Table(
    "edges",
    metadata,
    Column("child", Text, ForeignKey("artifacts.digest"), primary_key=True),
    Column("parent", Text, ForeignKey("artifacts.digest"), primary_key=True),
    Column("role", Text, primary_key=True),
    _integer("created_ms"),
    Index("edges_by_parent", "parent"),
)

records = Table(
    "records",
    metadata,
    Column("seq", _SERIAL, primary_key=True, autoincrement=True),
    _text("kind"),
    _text("id"),
    Column("body", JSON, nullable=False),
    _integer("created_ms"),
    UniqueConstraint("kind", "id", name="records_kind_id"),
    Index("records_by_kind", "kind", "seq"),
)

# Every move of a pointer is a row; the highest revision of a name is where it points now.
pointers = Table(
    "pointers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    _text("target"),
    _text("actor"),
    _integer("at_ms"),
)

versions = Table(
    "versions",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    _integer("last"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    _text("parent"),
    _text("step"),
    _text("name"),
    _text("status"),
    _integer("created_ms"),
    Column("body", JSON, nullable=False),
    Index("runs_by_parent", "parent"),
    Index("runs_by_status", "status"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    _text("operation"),
    Column("payload", JSON, nullable=False),
    _text("actor"),
    Column("idempotency_key", Text, nullable=True, unique=True),
    _text("status"),
    _integer("attempts", "0"),
    _integer("max_attempts", "1"),
    _integer("due_ms"),
    _text("worker", ""),
    _integer("token", "0"),
    _integer("lease_until_ms", "0"),
    _integer("cancel_requested", "0"),
    Column("result", JSON, nullable=True),
    Column("error", JSON, nullable=True),
    _integer("created_ms"),
    _integer("started_ms", "0"),
    _integer("ended_ms", "0"),
    Index("jobs_by_status", "status", "due_ms"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    _integer("at_ms"),
    _text("actor"),
    _text("action"),
    _text("subject"),
    Column("detail", JSON, nullable=False),
    _text("previous"),
    _text("hash"),
)

entries = Table(
    "entries",
    metadata,
    Column("seq", _SERIAL, primary_key=True, autoincrement=True),
    _text("id"),
    _text("request"),
    _text("kind"),
    _text("key"),
    _text("model"),
    _text("adapter"),
    _integer("prompt_tokens"),
    _integer("completion_tokens"),
    _integer("amount_nusd"),
    _integer("latency_ms"),
    _integer("at_ms"),
    Column("detail", JSON, nullable=False),
    UniqueConstraint("request", "kind", name="entries_request_kind"),
    Index("entries_by_key", "key", "seq"),
    Index("entries_by_model", "model", "seq"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("account", Text, primary_key=True),
    _integer("limit_nusd"),
    _integer("spent_nusd", "0"),
    _integer("reserved_nusd", "0"),
)

# One row per request and budget while money is held for it; settling or releasing removes it.
reservations = Table(
    "reservations",
    metadata,
    Column("request", Text, primary_key=True),
    Column("account", Text, ForeignKey("budgets.account"), primary_key=True),
    _integer("amount_nusd"),
    _text("holder"),
    _integer("at_ms"),
    Index("reservations_by_holder", "holder"),
)

step_cache = Table(
    "step_cache",
    metadata,
    Column("key", Text, primary_key=True),
    _text("pipeline"),
    _text("node"),
    _text("run"),
    Column("outputs", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("ingredients", JSON, nullable=False),
    _integer("created_ms"),
)

# Which key a pipeline's node had last: what an explanation compares with.
step_latest = Table(
    "step_latest",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("key", Text, ForeignKey("step_cache.key"), nullable=False),
)

# What was found out about a file while it had this size, time and inode.
file_facts = Table(
    "file_facts",
    metadata,
    Column("path", Text, primary_key=True),
    Column("fact", Text, primary_key=True),
    _integer("size_bytes"),
    _integer("mtime_ns"),
    _integer("inode"),
    Column("value", JSON, nullable=False),
)

APPEND_ONLY = ("records", "pointers", "audit", "entries")
