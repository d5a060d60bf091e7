"""Reserve the worst a request can cost, settle on what it did cost, replay what a dead process left behind.

Exactness under concurrency is the ledger's (one transaction per reservation); here is what is reserved and when it
ends:

    reserve   prompt tokens and the most answer tokens, at the model's price, on the key's budget
    settle    real usage; the rest is free again. The ledger row of kind `usage` is written in the same transaction
    recover   a reservation of a process that died: charged in full, since nobody knows what was used. A budget is a
              promise that no more is spent; charging less could break it. Idempotent by request id, like the rest.
              Not so a line of a batch: the batch asks it again under its reservation, and lets go of it at its end.

A line of a batch costs what it was reserved at. Where the price has changed when it is taken up again after a crash, or
its worst case has (a default, a server that counts otherwise), the first reservation stands: it was made at the price
in force when the line was admitted, its budget was found to hold that much and no other, and who asked did not choose
that the process died. So it is charged at that price, dearer or cheaper than today's, and never more than is held for
it. A reservation that does not say its price is charged at today's, within the same bound. A key without a budget
reserves nothing: its lines cost what the price is when they are answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from espalier.core.errors import Conflict, PermissionDenied
from espalier.core.ids import make_id, now_ms
from espalier.core.types import LedgerEntry
from espalier.gateway.holder import Holder
from espalier.gateway.keys import ApiKey
from espalier.gateway.price import Price
from espalier.store.ledger import Ledger, Reservation

BATCH_LINES = "batch_"  # how the request ids of a batch's lines begin


@dataclass(frozen=True, slots=True)
class Held:
    """What is held for a request, and the price it is charged at."""

    amount_nusd: int
    price: Price | None
    most_nusd: int | None = None  # of a line that is taken up again: it is charged no more


class Budgets:
    """The money of running requests. Safe to share between threads; every method blocks for a transaction."""

    def __init__(
        self, ledger: Ledger, holder: Holder, *, longest_request_ms: int, clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self._ledger = ledger
        self._holder = holder
        self._longest_request_ms = longest_request_ms
        self._clock_ms = clock_ms

    def reserve(
        self,
        request: str,
        key: ApiKey | None,
        price: Price | None,
        prompt_tokens: int,
        max_tokens: int,
        detail: dict[str, str],
    ) -> Held:
        """Hold the worst case (0 when nothing limits this key); of a line that was reserved before, what it holds.

        Raises BudgetExceeded, and PermissionDenied when a budget meets a model without a price.
        """
        if key is None or key.budget_nusd is None:
            return Held(0, price)
        if price is None:
            held = self._find_line(request, None)
            if held is not None and held.price is not None:
                return held
            raise PermissionDenied(
                f"{detail['model']} has no price, and key {key.id} has a budget to keep",
                hint="set gateway.prices for it, or ask with a key that has no budget",
            )
        worst_nusd = price.cost_nusd(prompt_tokens, max_tokens)
        known = {**detail, "prompt_tokens": prompt_tokens, "price": [str(price.prompt), str(price.completion)]}
        try:
            if self._ledger.reserve(request, [key.account], worst_nusd, holder=self._holder.id, detail=known):
                return Held(worst_nusd, price)
        except Conflict:  # it was reserved for another amount
            held = self._find_line(request, price)
            if held is None:
                raise
            return held
        return self._find_line(request, price) or Held(worst_nusd, price)

    def settle(self, entry: LedgerEntry) -> bool:
        """Write the usage row and charge its amount. False when this request was settled before.

        A line of a batch that is asked again may come out otherwise (another price, an engine that does not repeat
        itself): what it was charged the first time holds.
        """
        try:
            return self._ledger.settle(entry)
        except Conflict:
            if not self._is_charged_line(entry.request):
                raise
            return False

    def release(self, request: str) -> bool:
        """Free what is held for a request that has cost nothing. False when nothing was held."""
        return self._ledger.release(request)

    def release_lines(self, batch: str) -> int:
        """Free what is still held for lines of `batch` that will not be asked again; returns how many."""
        left = [held.request for held in self._ledger.reservations() if held.request.startswith(f"{batch}-")]
        return sum(self._ledger.release(request) for request in dict.fromkeys(left))

    def recover(self) -> int:
        """Settle what processes that died left reserved; returns how many requests. Call it at start."""
        held_now = (held for held in self._ledger.reservations() if not held.request.startswith(BATCH_LINES))
        left = [held for held in held_now if self._is_dead(held)]
        recovered = sum(self._ledger.settle(self._lost(held)) for held in left)
        self._holder.bury_the_dead()
        return recovered

    def close(self) -> None:
        """The process stops in order. What it could not settle is left to the next start."""
        self._holder.close(settled=not self._ledger.reservations(self._holder.id))

    def _find_line(self, request: str, price: Price | None) -> Held | None:
        """What a batch's line was reserved at; `price` where its reservation does not say. None for what is no line."""
        if not request.startswith(BATCH_LINES):
            return None
        for row in self._ledger.find(request):
            if row.kind == "reserve":
                told = row.detail.get("price")
                first = Price(Decimal(told[0]), Decimal(told[1])) if told else price
                return Held(row.amount_nusd, first, most_nusd=row.amount_nusd)
        return None

    def _is_charged_line(self, request: str) -> bool:
        return request.startswith(BATCH_LINES) and any(row.kind == "usage" for row in self._ledger.find(request))

    def _is_dead(self, held: Reservation) -> bool:
        life = self._holder.look_at(held.holder)
        if life == "unknown":  # a live one would have cut its request off by now
            return self._clock_ms() - held.at_ms > 2 * self._longest_request_ms
        return life == "dead"

    def _lost(self, held: Reservation) -> LedgerEntry:
        reserve = next(entry for entry in self._ledger.find(held.request) if entry.kind == "reserve")
        return LedgerEntry(
            id=make_id("entry"),
            request=held.request,
            kind="usage",
            key=held.account.removeprefix("key:"),
            model=str(reserve.detail.get("model", "")),
            adapter=str(reserve.detail.get("adapter", "")),
            prompt_tokens=int(reserve.detail.get("prompt_tokens", 0)),
            amount_nusd=held.amount_nusd,
            at_ms=self._clock_ms(),
            detail={"finish": "lost", "holder": held.holder, "asked": reserve.detail.get("asked", "")},
        )
