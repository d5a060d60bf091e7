"""The audit log: append-only, each link holding the hash of the one before, so a change anywhere shows.

The database refuses updates and deletes by trigger; `verify` finds what someone with the file in hand changed anyway.
Cutting off the newest links leaves a chain that is sound but short: keep `head()` somewhere else (a ticket, a
print-out) and pass it to `verify`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select

from espalier.core.errors import DigestMismatch
from espalier.core.ids import digest_of, now_ms
from espalier.core.types import AuditEvent
from espalier.store.database import Database
from espalier.store.tables import audit

GENESIS = "0" * 64  # what the first link names as the one before


class Audit:
    """The one chain of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, actor: str, action: str, subject: str, detail: Mapping[str, Any] | None = None) -> AuditEvent:
        """Add a link: `actor` did `action` ("models.approve") to `subject` ("model:support@v1"). `detail` is JSON."""
        with self._database.write(lock="audit") as connection:
            seq, previous = self.head()
            fields = {
                "seq": seq + 1,
                "at_ms": now_ms(),
                "actor": actor,
                "action": action,
                "subject": subject,
                "detail": dict(detail or {}),
                "previous": previous,
            }
            event = AuditEvent(**fields, hash=digest_of(fields))
            connection.execute(insert(audit).values(**event.model_dump(mode="json")))
        return event

    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest link; (0, GENESIS) of an empty log."""
        query = select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return (int(row.seq), str(row.hash)) if row else (0, GENESIS)

    def verify(self, head: tuple[int, str] | None = None) -> None:
        """Walk the chain; raises DigestMismatch naming the first seq that is wrong. `head`: what `head()` once gave."""
        expected, previous = 1, GENESIS
        with self._database.read() as connection:
            for row in connection.execute(select(audit).order_by(audit.c.seq)).mappings():
                fields = dict(row)
                claimed = fields.pop("hash")
                if fields["seq"] != expected:
                    raise _broken(expected, "is missing")
                if fields["previous"] != previous or digest_of(fields) != claimed:
                    raise _broken(expected, "is not what was written")
                if head is not None and head[0] == expected and head[1] != claimed:
                    raise _broken(expected, "was written anew")
                expected, previous = expected + 1, claimed
        if head is not None and head[0] >= expected:
            raise _broken(expected, "is missing at the end")

    def list(self, *, subject: str = "", actor: str = "", limit: int = 100, before: int = 0) -> Sequence[AuditEvent]:
        """The newest first; `before` is the smallest seq of the last page."""
        query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
        if subject:
            query = query.where(audit.c.subject == subject)
        if actor:
            query = query.where(audit.c.actor == actor)
        if before:
            query = query.where(audit.c.seq < before)
        with self._database.read() as connection:
            return [AuditEvent.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def _broken(seq: int, what: str) -> DigestMismatch:
    return DigestMismatch(
        f"the audit log is broken: entry {seq} {what}",
        hint="the database was changed outside Espalier; compare it with a backup from before that entry",
    )
