"""Money: an append-only ledger, and budgets that hold exactly however many requests ask at once.

A request reserves its worst case on every budget it counts against, all or none, then settles on what it really used.
Each of the three is idempotent by request id, so a journal may be replayed after kill -9. For every budget at every
moment

    reserved = sum of its open reservations      spent = sum of what was settled on it      reserved + spent <= limit

(the last as long as nobody settles more than was reserved). Knows no price, no key and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, insert, select, update

from espalier.core.errors import BudgetExceeded, Conflict, InvalidInput, NotFound
from espalier.core.ids import make_id, now_ms
from espalier.core.money import format_usd
from espalier.core.types import LedgerEntry, Spec
from espalier.store.database import Database
from espalier.store.tables import budgets, entries, reservations


class Balance(Spec):
    """What a budget holds now."""

    account: str
    limit_nusd: int
    spent_nusd: int
    reserved_nusd: int

    @property
    def left_nusd(self) -> int:
        return self.limit_nusd - self.spent_nusd - self.reserved_nusd


class Reservation(Spec):
    """Money held on one budget for one request, by the process `holder`."""

    request: str
    account: str
    amount_nusd: int
    holder: str
    at_ms: int


class Total(Spec):
    """Usage of one model or key."""

    name: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    amount_nusd: int


class Ledger:
    """All money of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, entry: LedgerEntry) -> bool:
        """Write a row; False when this (request, kind) is there already, Conflict when that one says otherwise."""
        with self._database.write(lock=f"entry:{entry.request}") as connection:
            here = (entries.c.request == entry.request) & (entries.c.kind == entry.kind)
            known = connection.execute(select(entries.c.amount_nusd).where(here)).first()
            if known is None:
                connection.execute(insert(entries).values(**entry.model_dump(mode="json")))
                return True
        if known.amount_nusd != entry.amount_nusd:
            raise Conflict(f"{entry.kind} of request {entry.request} was written with another amount")
        return False

    def find(self, request: str) -> Sequence[LedgerEntry]:
        """Every row of a request, in the order they were written."""
        return self._entries(select(entries).where(entries.c.request == request).order_by(entries.c.seq))

    def charged(self, prefix: str) -> Iterator[str]:
        """Every request with a usage row whose id begins with `prefix`, in order of their ids."""
        here = entries.c.request.startswith(prefix, autoescape=True) & (entries.c.kind == "usage")
        query = select(entries.c.request).where(here).order_by(entries.c.request)
        with self._database.read() as connection:
            yield from connection.execution_options(yield_per=10_000).execute(query).scalars()

    def list(self, *, key: str = "", model: str = "", kind: str = "", limit: int = 100) -> Sequence[LedgerEntry]:
        """The newest first."""
        query = select(entries).order_by(entries.c.seq.desc()).limit(limit)
        for column, value in ((entries.c.key, key), (entries.c.model, model), (entries.c.kind, kind)):
            if value:
                query = query.where(column == value)
        return self._entries(query)

    def totals(self, by: Literal["model", "key"], since_ms: int = 0) -> Sequence[Total]:
        """What was used (rows of kind usage or settle) per model or key, the dearest first."""
        name, amount = entries.c[by], func.sum(entries.c.amount_nusd)
        query = (
            select(name, func.count(), func.sum(entries.c.prompt_tokens), func.sum(entries.c.completion_tokens), amount)
            .where(entries.c.kind.in_(("usage", "settle")), entries.c.at_ms >= since_ms)
            .group_by(name)
            .order_by(amount.desc(), name)
        )
        with self._database.read() as connection:
            return [
                Total.model_validate(dict(zip(Total.model_fields, row, strict=True)))
                for row in connection.execute(query)
            ]

    def set_limit(self, account: str, limit_nusd: int) -> Balance:
        """Open a budget or change its limit; what is spent and reserved stays."""
        if limit_nusd < 0:
            raise InvalidInput("a budget cannot be negative", hint="0 refuses every request that costs anything")
        with self._database.write(lock=f"budget:{account}") as connection:
            changed = connection.execute(
                update(budgets).where(budgets.c.account == account).values(limit_nusd=limit_nusd)
            )
            if not changed.rowcount:
                connection.execute(insert(budgets).values(account=account, limit_nusd=limit_nusd))
        return self.balance(account)

    def balance(self, account: str) -> Balance:
        """Raises NotFound."""
        with self._database.read() as connection:
            row = connection.execute(select(budgets).where(budgets.c.account == account)).mappings().first()
        if row is None:
            raise NotFound(f"no budget {account}", hint="a key's budget is opened when the key is created")
        return Balance.model_validate(dict(row))

    def reserve(
        self,
        request: str,
        accounts: Sequence[str],
        amount_nusd: int,
        *,
        holder: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> bool:
        """Hold `amount_nusd` on every budget, or on none. False when this request was reserved before.

        `detail` is what whoever replays the request after a crash needs to know. Raises BudgetExceeded naming the
        budget that cannot, NotFound for one that does not exist.
        """
        if amount_nusd < 0:
            raise InvalidInput("a reservation cannot be negative")
        ordered = sorted(set(accounts))  # one order for everyone: two requests cannot wait for each other
        with self._database.write(lock=f"request:{request}") as connection:
            known = {**(detail or {}), "accounts": ordered, "holder": holder}
            if not self.append(_entry(request, "reserve", amount_nusd, known)):
                return False
            for account in ordered:
                room = budgets.c.limit_nusd - budgets.c.spent_nusd - budgets.c.reserved_nusd >= amount_nusd
                taken = connection.execute(
                    update(budgets)
                    .where(budgets.c.account == account, room)
                    .values(reserved_nusd=budgets.c.reserved_nusd + amount_nusd)
                )
                if not taken.rowcount:
                    raise self._refusal(account, amount_nusd)
                connection.execute(
                    insert(reservations).values(
                        request=request, account=account, amount_nusd=amount_nusd, holder=holder, at_ms=now_ms()
                    )
                )
        return True

    def settle(self, entry: LedgerEntry) -> bool:
        """Charge what a request really used (`kind` usage or settle), free the rest. False when it was settled before.

        A request that was released first, its usage arriving late, is charged all the same.
        """
        with self._database.write(lock=f"request:{entry.request}") as connection:
            if not self.append(entry):
                return False
            self._free(connection, entry.request)
            for account in self._accounts(entry.request):
                _charge(connection, account, entry.amount_nusd)
        return True

    def draw(self, entry: LedgerEntry, chunks: Sequence[str]) -> bool:
        """Charge `entry` to money reserved ahead for many requests: each of `chunks` (reserve requests) keeps its rest.

        This is how a gateway serves requests without a transaction each: it reserves a chunk, spends it in memory,
        and draws in batches (one `store.transaction()` around many). False when the entry was written before.
        """
        with self._database.write(lock=f"request:{entry.request}") as connection:
            if not self.append(entry):
                return False
            for chunk in sorted(set(chunks)):
                held = connection.execute(
                    select(reservations).where(reservations.c.request == chunk).with_for_update()
                ).all()
                for row in held:
                    used = min(entry.amount_nusd, row.amount_nusd)
                    here = (reservations.c.request == chunk) & (reservations.c.account == row.account)
                    connection.execute(update(reservations).where(here).values(amount_nusd=row.amount_nusd - used))
                    _unreserve(connection, row.account, used)
                for account in self._accounts(chunk):
                    _charge(connection, account, entry.amount_nusd)
        return True

    def release(self, request: str) -> bool:
        """Free what is still held for a request. False when there is nothing to free."""
        with self._database.write(lock=f"request:{request}") as connection:
            freed = self._free(connection, request)
            if freed is not None:
                self.append(_entry(request, "release", freed, {}))
        return freed is not None

    def reservations(self, holder: str = "") -> Sequence[Reservation]:
        """What is held now, the oldest first: after a crash, what a process left behind."""
        query = select(reservations).order_by(reservations.c.at_ms, reservations.c.request, reservations.c.account)
        if holder:
            query = query.where(reservations.c.holder == holder)
        with self._database.read() as connection:
            return [Reservation.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def _accounts(self, request: str) -> Sequence[str]:
        for entry in self.find(request):
            if entry.kind == "reserve":
                return list(map(str, entry.detail["accounts"]))
        return ()

    def _free(self, connection: Connection, request: str) -> int | None:
        """Take away a request's reservations; the amount held on each budget, or None when there were none."""
        query = select(reservations).where(reservations.c.request == request).order_by(reservations.c.account)
        held = connection.execute(query.with_for_update()).all()
        for row in held:
            _unreserve(connection, row.account, row.amount_nusd)
        connection.execute(delete(reservations).where(reservations.c.request == request))
        return int(held[0].amount_nusd) if held else None

    def _refusal(self, account: str, amount_nusd: int) -> BudgetExceeded:
        left = format_usd(self.balance(account).left_nusd)
        return BudgetExceeded(
            f"budget {account} has {left} left; this request could cost {format_usd(amount_nusd)}",
            hint="ask for fewer tokens (max_tokens), wait for running requests, or have the budget raised",
        )

    def _entries(self, query: Any) -> Sequence[LedgerEntry]:
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [LedgerEntry.model_validate({name: row[name] for name in LedgerEntry.model_fields}) for row in rows]


def _entry(request: str, kind: Literal["reserve", "release"], amount_nusd: int, detail: dict[str, Any]) -> LedgerEntry:
    return LedgerEntry(
        id=make_id("entry"), request=request, kind=kind, amount_nusd=amount_nusd, at_ms=now_ms(), detail=detail
    )  # fmt: skip


def _unreserve(connection: Connection, account: str, amount_nusd: int) -> None:
    change = budgets.c.reserved_nusd - amount_nusd
    connection.execute(update(budgets).where(budgets.c.account == account).values(reserved_nusd=change))


def _charge(connection: Connection, account: str, amount_nusd: int) -> None:
    change = budgets.c.spent_nusd + amount_nusd
    connection.execute(update(budgets).where(budgets.c.account == account).values(spent_nusd=change))
