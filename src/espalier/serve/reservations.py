"""Capacity held for reservations: their slots, and a bucket of tokens each. Imports no torch.

The bucket holds at most one minute's tokens and fills evenly. A work whose tokens it still has room for is guaranteed;
any other of the same reservation is served on demand, like everybody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from espalier.core.ports import ReservedShare
from espalier.serve.fairness import Crowd, FairQueue, put
from espalier.serve.work import Flow, Work

_NEW = 0.2
_TYPICAL_PROMPT_TOKENS = 64  # until a reservation's first prompt tells


@dataclass(slots=True, eq=False)
class Held:
    """One reservation, and what it uses now. `flow` and `burst` share one queue of waiting works."""

    share: ReservedShare
    flow: Flow  # among reservations
    burst: Flow  # beyond its slots: one flow among those on demand
    level: float  # tokens in the bucket
    filled_s: float
    running: int = 0  # guaranteed works that have a slot
    prompt_tokens: float = field(default=_TYPICAL_PROMPT_TOKENS)  # of a typical prompt

    @property
    def idle_slots(self) -> int:
        """Set aside, and not in use."""
        return max(0, self.share.slots - self.running)

    def guarantee(self, work: Work, now_s: float) -> bool:
        """Set the work's tokens aside; False when the bucket has not so many. A full bucket never refuses."""
        self.fill(now_s)
        tokens = self.flow.expect_tokens(work)
        if self.level < min(tokens, self.share.tokens_per_minute):
            return False
        self.level -= tokens
        work.guaranteed, work.set_aside = True, tokens
        self.prompt_tokens += (work.prompt_tokens - self.prompt_tokens) * _NEW
        return True

    def give_back(self, work: Work) -> None:
        """The work is over: what it did not use of its tokens flows back, and what it used beyond is taken.

        A work that never had a slot used none.
        """
        used = len(work.tokens) if work.slot >= 0 else 0
        self.level = min(self.level + work.set_aside - used, float(self.share.tokens_per_minute))
        work.set_aside = 0.0

    def fill(self, now_s: float) -> None:
        """What has flowed into the bucket by now."""
        most = self.share.tokens_per_minute
        self.level = min(self.level + (now_s - self.filled_s) * most / 60, float(most))
        self.filled_s = now_s


class Reservations:
    """All that is held now. Works that are guaranteed wait here; `among` is the queue of those on demand."""

    def __init__(self, among: FairQueue) -> None:
        self._among = among
        self.queue = FairQueue("guaranteed")
        self.held: dict[str, Held] = {}

    def hold(self, shares: Sequence[ReservedShare], now_s: float) -> list[Work]:
        """Hold exactly `shares`; returns the works that waited for one that is no more, in order."""
        wanted = {share.name: share for share in shares}
        freed: list[Work] = []
        for name in [name for name in self.held if name not in wanted]:
            gone = self.held.pop(name)
            freed += gone.flow.waiting
            gone.flow.waiting.clear()
            gone.flow.stays = gone.burst.stays = False
        for name, share in wanted.items():
            if name in self.held:
                self.held[name].share = share
                self.held[name].flow.weight = share.tokens_per_minute
            else:
                self.held[name] = self._open(share, now_s)
        return freed

    def add(self, work: Work, now_s: float, *, first: bool = False) -> bool:
        """Queue a work that its reservation has tokens for; False when there is no such reservation, or none left."""
        held = self.held.get(work.claim.reservation)
        if held is None or not held.guarantee(work, now_s):
            return False
        self.queue.join(held.flow)
        self._among.join(held.burst)
        work.flow = held.flow
        put(held.flow, work, first=first)
        return True

    def crowd(self, name: str, now_s: float, running: Sequence[Work] = ()) -> Crowd | None:
        """Who waits before the next work of a reservation that has tokens left; None where there is none such."""
        held = self.held.get(name)
        if held is None:
            return None
        held.fill(now_s)  # who is refused on demand's account must not be so for as long as others ask
        return self.queue.crowd(name, running) if held.level > 0 else None

    def best(self) -> tuple[float, Flow] | None:
        """(tag, flow) of the next guaranteed work whose reservation has a slot left for it."""
        return self.queue.best(lambda flow: self.held[flow.name].idle_slots > 0)

    def begin(self, work: Work) -> None:
        """A guaranteed work has got a slot, one of its own or one beyond."""
        held = self.held.get(work.claim.reservation)
        if held is not None:
            held.running += 1

    def finish(self, work: Work) -> None:
        """A guaranteed work is over, wherever it stood."""
        held = self.held.get(work.claim.reservation)
        if held is not None:
            held.running -= 1 if work.slot >= 0 else 0
            held.give_back(work)

    @property
    def idle_slots(self) -> int:
        return sum(held.idle_slots for held in self.held.values())

    def _open(self, share: ReservedShare, now_s: float) -> Held:
        flow = self.queue.open(share.name, share.tokens_per_minute)
        burst = self._among.open(f"reservation:{share.name}", like=flow)
        flow.stays = burst.stays = True
        return Held(share, flow, burst, float(share.tokens_per_minute), now_s)
