"""Immutable JSON records, the versions their names count up, and the pointers that say which one is meant.

A record is written once. What changes is where a pointer points, and every move is kept: compare-and-set makes two
people who move one at the same time see it, and the history is what a rollback goes back through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, and_, func, insert, literal, or_, select, true, update

from espalier.core.errors import Conflict, NotFound, did_you_mean
from espalier.core.ids import now_ms
from espalier.core.types import Spec
from espalier.store.database import Database
from espalier.store.tables import pointers, records, versions

Body = TypeVar("Body", bound=Spec)


class Pointer(Spec):
    """A name and what it points to since `at_ms`; `revision` counts its moves from 1."""

    name: str
    target: str
    revision: int
    actor: str = ""
    at_ms: int


class Unset:
    """The type of `ANY`."""


ANY = Unset()  # `expect=ANY`: move the pointer wherever it is


class Records:
    """All records, versions and pointers of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, kind: str, id: str, body: Spec) -> None:
        """Write a record. The same body again changes nothing; another body raises Conflict."""
        value = body.model_dump(mode="json")
        with self._database.write(lock=f"record:{kind}:{id}") as connection:
            query = select(records.c.body).where(records.c.kind == kind, records.c.id == id)
            known = connection.execute(query).first()
            if known is None:
                connection.execute(insert(records).values(kind=kind, id=id, body=value, created_ms=now_ms()))
            elif known.body != value:
                raise Conflict(f"{kind} {id} exists and is different", hint="records never change; make a new version")

    def get(self, kind: str, id: str, type: type[Body]) -> Body:
        """Raises NotFound, with the nearest id there is."""
        with self._database.read() as connection:
            query = select(records.c.body).where(records.c.kind == kind, records.c.id == id)
            row = connection.execute(query).first()
            if row is None:
                known = select(records.c.id).where(records.c.kind == kind).order_by(records.c.seq.desc()).limit(20)
                hint = did_you_mean(id, connection.execute(known).scalars())
                raise NotFound(f"no {kind} {id}", hint=hint or f"there is no {kind} yet")
        return type.model_validate(row.body)

    def has(self, kind: str, id: str) -> bool:
        if "\0" in id:  # PostgreSQL takes no such text, so nothing is called by it
            return False
        query = select(records.c.seq).where(records.c.kind == kind, records.c.id == id)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def list(
        self,
        kind: str,
        type: type[Body],
        limit: int = 100,
        before: str = "",
        *,
        after: str | None = None,
        where: Sequence[Mapping[str, str | None]] = (),
        pointed: tuple[str, str] | None = None,
    ) -> Sequence[Body]:
        """The newest first; the next page comes after the last page's last id, given as `before`.

        With `after` the oldest first, and what comes after that id; "" is the beginning. `where` says what fields
        must be (`a.b` is field `b` of field `a`, None that it is not there), as alternatives of which one must hold.
        `pointed` is a pair (prefix, target): only records whose pointer, `prefix` and the id, is at `target` now.
        Every filter is the query's, so that a page is short only where there is no more.
        """
        query = select(records.c.body).where(records.c.kind == kind)
        cursor = before if after is None else after
        if cursor:
            there = select(records.c.seq).where(records.c.kind == kind, records.c.id == cursor).scalar_subquery()
            query = query.where(records.c.seq < there if after is None else records.c.seq > there)
        if where:
            query = query.where(or_(*(_holds(fields) for fields in where)))
        if pointed:
            named = pointers.c.name == literal(pointed[0]) + records.c.id
            moves = select(pointers.c.target).where(named).order_by(pointers.c.revision.desc()).limit(1)
            query = query.where(moves.correlate(records).scalar_subquery() == pointed[1])
        query = query.order_by(records.c.seq.desc() if after is None else records.c.seq).limit(limit)
        with self._database.read() as connection:
            return [type.model_validate(body) for body in connection.execute(query).scalars()]

    def next_version(self, kind: str, name: str) -> int:
        """1, 2, 3 ...: each number is given once, to one caller. A transaction that fails gives its number back."""
        here = (versions.c.kind == kind) & (versions.c.name == name)
        with self._database.write(lock=f"version:{kind}:{name}") as connection:
            last = connection.execute(select(versions.c.last).where(here)).scalar()
            if last is None:
                connection.execute(insert(versions).values(kind=kind, name=name, last=1))
                return 1
            connection.execute(update(versions).where(here).values(last=last + 1))
            return int(last) + 1

    def set_pointer(self, name: str, target: str, *, expect: str | Unset | None = ANY, actor: str = "local") -> Pointer:
        """Point `name` at `target`. `expect` is where it must point now (None: nowhere yet), else Conflict."""
        with self._database.write(lock=f"pointer:{name}") as connection:
            now = self.find_pointer(name)
            found = now.target if now else None
            if not isinstance(expect, Unset) and found != expect:
                said = f"points to {found}" if found else "points nowhere"
                raise Conflict(
                    f"{name} {said}, not to {expect or 'nothing'}", hint="someone moved it; look and try again"
                )
            moved = Pointer(
                name=name, target=target, revision=now.revision + 1 if now else 1, actor=actor, at_ms=now_ms()
            )
            connection.execute(insert(pointers).values(**moved.model_dump()))
        return moved

    def get_pointer(self, name: str) -> Pointer:
        """Raises NotFound, with the nearest name there is."""
        found = self.find_pointer(name)
        if found is None:
            with self._database.read() as connection:
                known = connection.execute(select(pointers.c.name).distinct().limit(200)).scalars().all()
            raise NotFound(f"no pointer {name}", hint=did_you_mean(name, known))
        return found

    def find_pointer(self, name: str) -> Pointer | None:
        """Where `name` points now, or None."""
        query = select(pointers).where(pointers.c.name == name).order_by(pointers.c.revision.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return Pointer.model_validate(dict(row)) if row else None

    def list_pointers(self, prefix: str = "") -> Sequence[Pointer]:
        """Where every name that starts with `prefix` points now, by name."""
        latest = select(pointers.c.name, func.max(pointers.c.revision).label("revision")).group_by(pointers.c.name)
        newest = latest.subquery()
        query = (
            select(pointers)
            .join(newest, (pointers.c.name == newest.c.name) & (pointers.c.revision == newest.c.revision))
            .where(func.substr(pointers.c.name, 1, len(prefix)) == prefix)  # LIKE ignores case in SQLite
        )
        with self._database.read() as connection:
            found = [Pointer.model_validate(dict(row)) for row in connection.execute(query).mappings()]
        return sorted(found, key=lambda pointer: pointer.name)

    def pointer_history(self, name: str) -> Sequence[Pointer]:
        """Every move of `name`, the newest first."""
        query = select(pointers).where(pointers.c.name == name).order_by(pointers.c.revision.desc())
        with self._database.read() as connection:
            return [Pointer.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def _holds(fields: Mapping[str, str | None]) -> ColumnElement[bool]:
    """That a record's fields are these; JSON's null and a field that is not there are both None."""
    found = {name: records.c.body[tuple(name.split("."))].as_string() for name in fields}
    said = (found[name].is_(None) if value is None else found[name] == value for name, value in fields.items())
    return and_(true(), *said)
