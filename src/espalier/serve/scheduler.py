"""Who computes which tokens next: continuous batching without a prefill or a decode phase. Imports no torch.

A `Work` has *computed* tokens and *wanted* tokens. Each step shares a token budget among the works in order of
admission: a fresh prompt is many wanted tokens, an answer under way is one, and nothing else tells them apart (the idea
of vLLM's scheduler). When all of a work's tokens are computed, its next token can be chosen; appending it makes it want
one more.

A running work sits in a cache slot. Running works fill slots 0..n-1 without a hole, so that attention reads views and
never gathers. What a slot held stays readable until it is overwritten, and a prompt that begins like it, under the same
adapter, starts from a copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

# Shorter common beginnings are cheaper to compute than to look up and copy.
SHORTEST_PREFIX_TOKENS = 16


@dataclass(slots=True, eq=False)
class Work:
    """One request inside the engine. `tokens` is the prompt, then the answer as it grows; `adapter` never changes."""

    id: str
    adapter: str  # digest; empty = the base itself
    tokens: list[int]
    prompt_tokens: int
    most_tokens: int  # prompt and answer together never grow beyond this
    computed: int = 0
    slot: int = -1
    cancelled: bool = False

    @property
    def wanted(self) -> int:
        """Tokens that are known but not computed."""
        return len(self.tokens) - self.computed

    @property
    def answer(self) -> list[int]:
        return self.tokens[self.prompt_tokens :]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute `work.tokens[start:end]`. When `ends` the last of them decides the work's next token."""

    work: Work
    start: int
    end: int
    ends: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the first `count` cached positions of slot `source` into slot `target`."""

    source: int
    target: int
    count: int


@dataclass(slots=True)
class Plan:
    """One step: the copies in order, then the chunks together."""

    copies: list[Copy] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)


@dataclass(slots=True)
class _Held:
    """What a slot's cache holds: the first `count` of `tokens`, computed under `adapter`."""

    adapter: str = ""
    tokens: Sequence[int] = ()
    count: int = 0


class Scheduler:
    """`add`, `plan`, `commit` and `release` are a work's whole life. Not thread-safe: the engine locks."""

    def __init__(self, slots: int, budget_tokens: int) -> None:
        self.slots = slots
        # Every running work must get at least a token a step, else an answer under way could stall.
        self.budget_tokens = max(budget_tokens, slots)
        self.waiting: deque[Work] = deque()
        self.running: list[Work] = []  # in order of admission
        self._held = [_Held() for _ in range(slots)]

    def add(self, work: Work) -> None:
        """Queue a work; it gets a slot when one is free and the step has tokens left for it."""
        self.waiting.append(work)

    def cancel(self, work: Work) -> None:
        """Drop a waiting work at once; a running one leaves at the next `plan`."""
        work.cancelled = True
        if work.slot < 0 and work in self.waiting:
            self.waiting.remove(work)

    @property
    def busy(self) -> bool:
        """Whether `plan` would find something to do."""
        return bool(self.running or self.waiting)

    def uses(self, adapter: str) -> int:
        """How many works, waiting or running and not cancelled, are pinned to `adapter`."""
        return sum(work.adapter == adapter and not work.cancelled for work in [*self.running, *self.waiting])

    def plan(self) -> Plan:
        """The next step. Empty when there is nothing to do. Every plan must be committed before the next."""
        plan = Plan()
        for work in [work for work in self.running if work.cancelled]:
            self.release(work)
        self._close_holes(plan)
        left = self.budget_tokens
        for work in self.running:
            left -= self._take(plan, work, left)
        while left > 0 and self.waiting and len(self.running) < self.slots:
            work = self.waiting.popleft()
            self._admit(plan, work)
            left -= self._take(plan, work, left)
        return plan

    def commit(self, plan: Plan) -> None:
        """The step has run: its tokens count as computed. New tokens are appended to a work by whoever chose them."""
        for chunk in plan.chunks:
            chunk.work.computed = chunk.end
            self._held[chunk.work.slot].count = chunk.end

    def release(self, work: Work) -> None:
        """The work is done: its slot is free, what it holds stays for a prompt with the same beginning."""
        self.running.remove(work)
        work.slot = -1

    def forget(self, adapter: str | None = None) -> None:
        """Drop what was cached under `adapter`, or everything: no later prompt starts from it."""
        for held in self._held:
            if adapter is None or held.adapter == adapter:
                held.count = 0

    def _take(self, plan: Plan, work: Work, left: int) -> int:
        count = min(work.wanted, left)
        if count > 0:
            plan.chunks.append(Chunk(work, work.computed, work.computed + count, ends=count == work.wanted))
        return count

    def _close_holes(self, plan: Plan) -> None:
        """Move the works in the highest slots down, until slots 0..n-1 are exactly those in use."""
        n = len(self.running)
        taken = {work.slot for work in self.running}
        holes = [slot for slot in range(n) if slot not in taken]
        for work in [work for work in self.running if work.slot >= n]:
            target = holes.pop()
            plan.copies.append(Copy(work.slot, target, work.computed))
            self._held[target] = _Held(work.adapter, work.tokens, work.computed)
            work.slot = target

    def _admit(self, plan: Plan, work: Work) -> None:
        work.slot = len(self.running)
        self.running.append(work)
        source, count = self._find_prefix(work)
        if count > 0 and source != work.slot:
            plan.copies.append(Copy(source, work.slot, count))
        self._held[work.slot] = _Held(work.adapter, work.tokens, count)
        work.computed = count

    def _find_prefix(self, work: Work) -> tuple[int, int]:
        """(slot, tokens) of the longest cached beginning of the prompt; its last token is always computed anew."""
        best = (-1, 0)
        head = work.tokens[:SHORTEST_PREFIX_TOKENS]
        for slot, held in enumerate(self._held):
            most = min(held.count, len(work.tokens) - 1)
            if most < SHORTEST_PREFIX_TOKENS or most <= best[1] or held.adapter != work.adapter:
                continue
            if held.tokens[:SHORTEST_PREFIX_TOKENS] == head:
                best = max(best, (slot, common_prefix(held.tokens, work.tokens, most)), key=lambda found: found[1])
        return best


def common_prefix(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """How many of the first `most` items are equal, by bisection over slices (compared in C)."""
    low, high = 0, most  # the first `low` are equal; beyond `high` they are not, or not looked at
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
