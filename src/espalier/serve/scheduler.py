"""Who computes which tokens next: continuous batching without a prefill or a decode phase. Imports no torch.

A `Work` has *computed* tokens and *wanted* tokens. Each step shares a token budget among the works: a fresh prompt is
many wanted tokens, an answer under way is one, and nothing else tells them apart (the idea of vLLM's scheduler). When
all of a work's tokens are computed, its next token can be chosen; appending it makes it want one more.

Three classes are served in this order, each by weighted fair queueing (`fairness.py`):

    guaranteed   works whose reservation has tokens for them; their slots are set aside, and while they run, what others
                 add to a step may make it no more than `slack` times as long as it is with them alone
    on demand    all other interactive works, in the slots that are not set aside
    batch        what is left of slots and tokens; a batch work gives its slot up when another needs it, keeps its
                 tokens, and begins again where it stood as soon as there is room

While a reservation is idle, a step takes no longer than `wait_share` of what its next prompt will, so that this one
waits little for the step under way. Without reservations and batch works nothing is limited but by the budget.

A running work sits in a cache slot. Running works fill slots 0..n-1 without a hole, so that attention reads views and
never gathers. What a slot held stays readable until it is overwritten, and a prompt that begins like it, under the same
adapter, starts from a copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from espalier.core.ports import EngineLoad, ReservedShare
from espalier.serve.fairness import Crowd, FairQueue, spend
from espalier.serve.prefixes import SHORTEST_PREFIX_TOKENS, Prefixes, common_prefix
from espalier.serve.reservations import Reservations
from espalier.serve.step import Step, shape_of
from espalier.serve.stepcost import Shape, StepCost
from espalier.serve.work import Chunk, Claim, Copy, Flow, Plan, Work

__all__ = ["SHORTEST_PREFIX_TOKENS", "Chunk", "Claim", "Copy", "Plan", "Scheduler", "Work", "common_prefix"]


# Where not even one more token fits a limit, others get one in so many steps: they slow down, and never stop.
_STEPS_PER_TOKEN = 4


class Scheduler:
    """`add`, `plan`, `commit` and `release` are a work's whole life. Not thread-safe: the engine locks."""

    def __init__(
        self,
        slots: int,
        budget_tokens: int,
        *,
        weights: Mapping[str, float] | None = None,
        slack: float = 1.15,
        wait_share: float = 0.15,
        batch_slack: float = 1.5,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = slots
        # Every running work must be able to get a token a step, else an answer under way could stall.
        self.budget_tokens = max(budget_tokens, slots)
        self.running: list[Work] = []  # in order of admission
        self.cost = StepCost()
        self._slack, self._wait_share, self._batch_slack = slack, wait_share, batch_slack
        self._clock_s = clock_s
        self._demand = FairQueue("demand", weights)
        self._batch = FairQueue("batch", weights)
        self._reserved = Reservations(self._demand)
        self._queues = {queue.name: queue for queue in (self._reserved.queue, self._demand, self._batch)}
        self._prefixes = Prefixes(slots)
        self._turn = 0
        self._turns = {"demand": 0, "batch": 0}  # when the class last had a token
        self._prompt_turns = {"demand": 0, "batch": 0}  # when a prompt of the class was last read

    def hold(self, shares: Sequence[ReservedShare]) -> None:
        """Hold exactly these shares from the next step on. What loses its reservation goes on, on demand."""
        for work in self._reserved.hold(shares, self._clock_s()):
            work.guaranteed = False
            self._demand.add(work, work.claim.flow)
        for work in self.running:
            work.guaranteed = work.guaranteed and work.claim.reservation in self._reserved.held

    def add(self, work: Work, *, first: bool = False) -> None:
        """Queue a work; it gets a slot when one is free for its class and the step has tokens left for it.

        `first`: it comes before those of its flow that wait already, belonging to a request that came before theirs.
        """
        work.arrived_s = self._clock_s()
        if work.claim.lane == "batch":
            self._batch.add(work, work.claim.flow, first=first)
        elif not self._reserved.add(work, work.arrived_s, first=first):
            self._demand.add(work, work.claim.flow, first=first)

    def cancel(self, work: Work) -> None:
        """Drop a waiting work at once; a running one leaves at the next `plan`."""
        work.cancelled = True
        if work.slot < 0 and work.flow is not None and work in work.flow.waiting:
            work.flow.waiting.remove(work)
            if work.guaranteed:
                self._reserved.finish(work)

    def crowd(self, claim: Claim) -> Crowd:
        """Who waits before the next work with this claim."""
        if claim.lane == "batch":
            return self._batch.crowd(claim.flow, self.running)
        reserved = self._reserved.crowd(claim.reservation, self._clock_s(), self.running)
        return reserved or self._demand.crowd(claim.flow, self.running)

    @property
    def waiting(self) -> list[Work]:
        """Those without a slot; a flow's works in their order."""
        bursts = {id(held.burst) for held in self._reserved.held.values()}
        flows = [flow for queue in self._queues.values() for flow in queue.flows.values() if id(flow) not in bursts]
        return [work for flow in flows for work in flow.waiting]

    @property
    def busy(self) -> bool:
        """Whether `plan` would find something to do."""
        return bool(self.running or self.waiting)

    def uses(self, adapter: str) -> int:
        """How many works, waiting or running and not cancelled, are pinned to `adapter`."""
        return sum(work.adapter == adapter and not work.cancelled for work in [*self.running, *self.waiting])

    def load(self) -> EngineLoad:
        """What runs and waits now."""
        waiting, now_s = self.waiting, self._clock_s()
        works = [*self.running, *waiting]
        return EngineLoad(
            running=len(self.running),
            waiting=len(waiting) + sum(work.followers for work in works),
            tokens_in_flight=sum(work.most_tokens * (1 + work.followers) for work in works),
            queue_s=max((now_s - work.arrived_s for work in waiting), default=0.0),
            slots=self.slots,
        )

    def plan(self) -> Plan:
        """The next step. Empty when there is nothing to do. Every plan must be committed before the next."""
        self._turn += 1
        step = Step(self.budget_tokens, self.cost, self._turn)
        for work in [work for work in self.running if work.cancelled]:
            self.release(work)
        self._close_holes(step.plan)
        self._serve_guaranteed(step)
        if self._reserved.held:
            step.limit(self._longest_step_s(step))
        self._serve(step, self._demand, self._free_on_demand)
        if step.plan.chunks and (self._batch.flows or any(work.claim.lane == "batch" for work in self.running)):
            step.limit(self._batch_slack * step.seconds)
        self._serve(step, self._batch, lambda: len(self.running) < self.slots)
        return step.plan

    def commit(self, plan: Plan, seconds: float = 0.0) -> None:
        """The step has run, in `seconds` where they were measured: its tokens count as computed.

        New tokens are appended to a work by whoever chose them.
        """
        if seconds > 0:
            self.cost.learn(shape_of(plan), seconds)
        for chunk in plan.chunks:
            chunk.work.computed = chunk.end
            spend(chunk.work, chunk.end - chunk.start)
            self._prefixes.grow(chunk.work)

    def release(self, work: Work) -> None:
        """The work is done: its slot is free, what it holds stays for a prompt with the same beginning."""
        self.running.remove(work)
        if work.flow is not None:
            self._queues[work.flow.queue].finish(work)
        if work.guaranteed:
            self._reserved.finish(work)
        work.slot = -1

    def forget(self, adapter: str | None = None) -> None:
        """Drop what was cached under `adapter`, or everything: no later prompt starts from it."""
        self._prefixes.forget(adapter)

    def distrust(self) -> None:
        """A step failed, and what it wrote and copied is unknown: who runs computes all of its tokens again."""
        self._prefixes.forget()
        for work in self.running:
            work.computed = 0

    def _serve_guaranteed(self, step: Step) -> None:
        """All of them, as if nobody else were there."""
        running = [work for work in self.running if work.guaranteed]
        for work in sorted(running, key=lambda work: (work.wanted > 1, work.tag)):
            step.take(work, work.wanted)
        while step.left > 0 and self._has_slot() and (best := self._reserved.best()):
            work = self._admit(step, self._reserved.queue, best[1])
            step.take(work, work.wanted)

    def _serve(self, step: Step, queue: FairQueue, has_slot: Callable[[], bool]) -> None:
        """One class, within the step's limit: answers under way, and prompts by their tags.

        Within a limit not everybody gets a token each step. Whoever waited longest comes first; prompts take turns with
        the answers, all prompts together being one more answer.
        """
        before = len(step.plan.chunks)
        step.owed = before == 0 or self._turn - self._turns[queue.name] >= _STEPS_PER_TOKEN
        works = [w for w in self.running if not w.guaranteed and (w.claim.lane == "batch") == (queue is self._batch)]
        rows = [work for work in works if work.wanted == 1]
        if step.limited:
            rows.sort(key=lambda work: work.turn)
            if rows and self._prompt_turns[queue.name] < rows[0].turn:
                self._read_prompts(step, works, queue, has_slot)
        for work in rows:
            if not step.take(work, step.room(work)):
                break
        self._read_prompts(step, works, queue, has_slot)
        if len(step.plan.chunks) > before:
            self._turns[queue.name] = self._turn

    def _read_prompts(self, step: Step, works: list[Work], queue: FairQueue, has_slot: Callable[[], bool]) -> None:
        """Prompts that have a slot, and those that get one now, whoever's tag is least."""
        begun = sorted((w for w in works if w.wanted > 1 and w.turn < self._turn), key=lambda work: work.tag)
        begun.reverse()
        while step.left > 0 and (step.owed or step.has_time):
            best = queue.best() if has_slot() else None
            if begun and (best is None or begun[-1].tag <= best[0]):
                work = begun.pop()
            elif best is not None:
                work = self._admit(step, queue, best[1])
            else:
                return
            if not step.take(work, step.room(work)):
                return
            self._prompt_turns[queue.name] = self._turn

    def _longest_step_s(self, step: Step) -> float:
        """With guaranteed works in it: `slack` times what they take. Else as short as a fresh one can bear to wait."""
        if step.plan.chunks:
            return self._slack * step.seconds
        prompt = min(held.prompt_tokens for held in self._reserved.held.values())
        return self._wait_share * self.cost.predict_s(Shape(prompt=round(prompt)))

    def _has_slot(self) -> bool:
        """Whether an interactive work can have a slot: a free one, or one that a batch work gives up."""
        return len(self.running) < self.slots or any(work.claim.lane == "batch" for work in self.running)

    def _free_on_demand(self) -> bool:
        """Whether a slot is left that is not set aside."""
        interactive = sum(work.claim.lane != "batch" for work in self.running)
        return interactive + self._reserved.idle_slots < self.slots

    def _close_holes(self, plan: Plan) -> None:
        """Move the works in the highest slots down, until slots 0..n-1 are exactly those in use."""
        n = len(self.running)
        taken = {work.slot for work in self.running}
        holes = [slot for slot in range(n) if slot not in taken]
        for work in [work for work in self.running if work.slot >= n]:
            target = holes.pop()
            plan.copies.append(Copy(work.slot, target, work.computed))
            work.slot = target
            self._prefixes.place(work, work.computed)

    def _admit(self, step: Step, queue: FairQueue, flow: Flow) -> Work:
        slot = self._evict() if len(self.running) == self.slots else len(self.running)
        work = queue.take(flow)
        source, count = self._prefixes.find(work)
        work.slot = slot
        self.running.append(work)
        if count > 0 and source != work.slot:
            step.plan.copies.append(Copy(source, work.slot, count))
        work.computed = count
        if not work.turn:  # a batch work that had a slot before finds tokens of its own
            work.cached = count
        self._prefixes.place(work, count)
        if work.guaranteed:
            self._reserved.begin(work)
        return work

    def _evict(self) -> int:
        """The slot of the batch work that has the least to compute again."""
        work = min((work for work in self.running if work.claim.lane == "batch"), key=lambda work: work.computed)
        slot = work.slot
        self.running.remove(work)
        work.slot, work.computed = -1, 0
        self._batch.put_back(work)
        return slot
