"""The step cache: which outputs a key gave, from which ingredients, and which key a pipeline's node had last.

Knows nothing of how a key is made; the ingredients are JSON to be compared by whoever explains a miss.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, select

from espalier.core.ids import now_ms
from espalier.core.types import Spec
from espalier.store.database import Database
from espalier.store.tables import step_cache, step_latest


class CacheRow(Spec):
    """What one execution gave: `outputs` maps a port to an artifact digest."""

    key: str
    pipeline: str
    node: str
    run: str
    outputs: dict[str, str]
    metrics: dict[str, float] = {}
    ingredients: dict[str, Any]
    created_ms: int = 0


class StepCache:
    """All cached executions of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, key: str) -> CacheRow | None:
        """The row of `key`, or None."""
        return self._first(select(step_cache).where(step_cache.c.key == key))

    def latest(self, pipeline: str, node: str) -> CacheRow | None:
        """The row that `node` of `pipeline` made or used last: what to compare a new key's ingredients with."""
        here = (step_latest.c.pipeline == pipeline) & (step_latest.c.node == node)
        return self._first(select(step_cache).join(step_latest, step_latest.c.key == step_cache.c.key).where(here))

    def put(self, row: CacheRow) -> None:
        """Record an execution; a key that was there (its artifacts were damaged, say) is replaced."""
        with self._database.write(lock="step_cache") as connection:
            held = select(step_latest.c.pipeline, step_latest.c.node).where(step_latest.c.key == row.key)
            holders = {(holder.pipeline, holder.node) for holder in connection.execute(held)}
            connection.execute(delete(step_latest).where(step_latest.c.key == row.key))
            connection.execute(delete(step_cache).where(step_cache.c.key == row.key))
            connection.execute(
                insert(step_cache).values(**row.model_dump() | {"created_ms": row.created_ms or now_ms()})
            )
            for pipeline, node in holders | {(row.pipeline, row.node)}:
                self.use(row.key, pipeline, node)

    def use(self, key: str, pipeline: str, node: str) -> None:
        """Note that `node` of `pipeline` has this key now."""
        here = (step_latest.c.pipeline == pipeline) & (step_latest.c.node == node)
        with self._database.write(lock="step_cache") as connection:
            if connection.execute(select(step_latest.c.key).where(here)).scalar() != key:
                connection.execute(delete(step_latest).where(here))
                connection.execute(insert(step_latest).values(pipeline=pipeline, node=node, key=key))

    def _first(self, query: Any) -> CacheRow | None:
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return CacheRow.model_validate({name: row[name] for name in CacheRow.model_fields}) if row else None
