"""Who goes next: weighted fair queueing over tokens. Imports no torch; knows no slot and no step.

Each flow has a clock that counts the tokens it was given, divided by its weight; the flow whose clock stands lowest
goes next, with the work that waits first in it (start-time fair queueing; Goyal, Vin, Cheng 1996). A flow that begins
to wait is not owed for the time in which it asked for nothing: its clock is brought up to the virtual time, the clock
of whoever was served last.

How long an answer will be is not known when its work is chosen. It is charged with what the flow's answers took so far
(at first: with the most it may take), and the clock is put right as tokens are computed and when the answer ends: the
virtual token counter of Sheng et al. 2024, "Fairness in Serving Large Language Models", with its length prediction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from espalier.serve.work import Flow, Work

_LOOKED_AT = 16  # works of a flow, to know how many tokens wait in it
_NEW = 0.2  # how much the last answer says about the next one


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who waits in a queue, as one flow sees it."""

    waiting: int = 0  # answers: works, and those that follow a work
    tokens: float = 0.0  # their prompts and expected answers
    flow_waiting: int = 0  # the flow's own
    flow_tokens: float = 0.0
    share: float = 1.0  # of the engine, for the flow, among those that ask now


class FairQueue:
    """The flows of one class of works, called `name`. Not thread-safe."""

    def __init__(self, name: str, weights: Mapping[str, float] | None = None) -> None:
        self.name = name
        self._weights = dict(weights or {})
        self._virtual = 0.0
        self.flows: dict[str, Flow] = {}

    def add(self, work: Work, name: str, *, first: bool = False) -> None:
        """Queue a work as the last of its flow, or as its first."""
        flow = self.flows.get(name)
        if flow is None:
            self._drop_idle()
            flow = self.open(name, self._weights.get(name, 1.0))
        self.join(flow)
        work.flow = flow
        put(flow, work, first=first)

    def open(self, name: str, weight: float = 1.0, like: Flow | None = None) -> Flow:
        """A new flow; with `like` it shares that flow's waiting works."""
        flow = self.flows[name] = Flow(name, self.name, weight)
        if like is not None:
            flow.waiting = like.waiting
        return flow

    def join(self, flow: Flow) -> None:
        """The flow begins to wait, or goes on waiting: the time in which it asked for nothing is not made up for."""
        if not flow.waiting:
            flow.clock = max(flow.clock, self._virtual)

    def crowd(self, name: str, running: Sequence[Work] = ()) -> Crowd:
        """What the next work of flow `name` would find before it; of `running` works, the answers that follow them."""
        leading: dict[str, list[Work]] = defaultdict(list)
        for work in running:
            if work.followers and work.flow is not None and work.flow.queue == self.name:
                leading[work.flow.name].append(work)
        asking = [flow for flow in self.flows.values() if flow.waiting or flow.name in leading]
        waiting = {flow.name: _count(flow, leading[flow.name]) for flow in asking}
        tokens = {flow.name: _weigh(flow, leading[flow.name]) for flow in asking}
        own = self.flows.get(name)
        weight = own.weight if own else self._weights.get(name, 1.0)
        weights = weight + sum(flow.weight for flow in asking if flow is not own)
        return Crowd(
            sum(waiting.values()), sum(tokens.values()), waiting.get(name, 0), tokens.get(name, 0.0), weight / weights
        )

    def best(self, allowed: Callable[[Flow], bool] = lambda flow: True) -> tuple[float, Flow] | None:
        """(tag, flow) of the flow whose first work goes next, or None. Among equals, who came first."""
        waiting = [flow for flow in self.flows.values() if flow.waiting and allowed(flow)]
        if not waiting:
            return None
        best = min(waiting, key=lambda flow: (flow.clock, flow.waiting[0].arrived_s))
        return best.clock, best

    def take(self, flow: Flow) -> Work:
        """The flow's first work, charged."""
        work = flow.waiting.popleft()
        self._virtual = max(self._virtual, flow.clock)
        work.flow, work.spent, work.charged = flow, 0, flow.expect_tokens(work)
        work.tag = flow.clock
        flow.running += 1
        flow.clock += work.charged / flow.weight
        return work

    def put_back(self, work: Work) -> None:
        """Take its slot from a work: it is its flow's first again."""
        flow = _flow_of(work)
        self._settle(work, flow)
        flow.waiting.appendleft(work)

    def finish(self, work: Work) -> None:
        """The work is done, or cancelled while it had a slot."""
        flow = _flow_of(work)
        answered = len(work.tokens) - work.prompt_tokens
        if answered:
            flow.answer_tokens += (answered - flow.answer_tokens) * (_NEW if flow.answer_tokens else 1.0)
        self._settle(work, flow)
        if not any(flow.waiting or flow.running for flow in self.flows.values()):
            self._virtual = max((flow.clock for flow in self.flows.values()), default=self._virtual)
            self._drop_idle()

    def _settle(self, work: Work, flow: Flow) -> None:
        flow.running -= 1
        flow.clock -= (work.charged - work.spent) / flow.weight
        work.charged = work.spent = 0

    def _drop_idle(self) -> None:
        """A clock behind the virtual time says nothing: it would be brought up anyway."""
        for flow in list(self.flows.values()):
            if not (flow.stays or flow.waiting or flow.running) and flow.clock <= self._virtual:
                del self.flows[flow.name]


def spend(work: Work, tokens: int) -> None:
    """So many tokens of the work were computed; beyond what was expected they are charged as they come."""
    work.spent += tokens
    if work.flow is not None and work.spent > work.charged:
        work.flow.clock += (work.spent - work.charged) / work.flow.weight
        work.charged = work.spent


def _flow_of(work: Work) -> Flow:
    if work.flow is None:
        raise LookupError(f"work {work.id} was never queued")
    return work.flow


def put(flow: Flow, work: Work, *, first: bool) -> None:
    """Let a work wait in its flow, as the last or the first."""
    (flow.waiting.appendleft if first else flow.waiting.append)(work)


def _count(flow: Flow, leading: Sequence[Work]) -> int:
    return len(flow.waiting) + sum(work.followers for work in flow.waiting) + sum(work.followers for work in leading)


def _weigh(flow: Flow, leading: Sequence[Work]) -> float:
    """Tokens that wait in the flow, judged by its first works: who is refused a thousand times must cost little."""
    first = list(islice(flow.waiting, _LOOKED_AT))
    queued = sum(map(flow.expect_all, first)) / len(first) * len(flow.waiting) if first else 0.0
    return queued + sum(map(flow.expect_followers, leading))
