"""The scheduler against a model of its cache: a slot is a list that steps write and must find their past in."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from espalier.core.ports import ReservedShare
from espalier.serve.scheduler import SHORTEST_PREFIX_TOKENS, Claim, Plan, Scheduler, Work, common_prefix

PREFIX = list(range(100, 140))


def make_work(name: str, prompt: list[int], adapter: str = "", new: int = 3) -> Work:
    return Work(name, adapter, list(prompt), len(prompt), len(prompt) + new)


class CacheModel:
    """What a real cache would do: (adapter, token) pairs per slot and position."""

    def __init__(self, slots: int) -> None:
        self.cells: list[list[tuple[str, int]]] = [[] for _ in range(slots)]

    def run(self, plan: Plan) -> None:
        for copy in plan.copies:
            assert copy.source != copy.target
            assert len(self.cells[copy.source]) >= copy.count
            self.cells[copy.target] = self.cells[copy.source][: copy.count]
        for chunk in plan.chunks:
            cell = self.cells[chunk.work.slot]
            # Everything before the chunk must lie in the slot, computed under this very adapter.
            assert cell[: chunk.start] == [(chunk.work.adapter, token) for token in chunk.work.tokens[: chunk.start]]
            new = [(chunk.work.adapter, token) for token in chunk.work.tokens[chunk.start : chunk.end]]
            self.cells[chunk.work.slot] = cell[: chunk.start] + new


class Serving(RuleBasedStateMachine):
    @initialize(slots=st.integers(1, 5), budget=st.integers(1, 60))
    def begin(self, slots: int, budget: int) -> None:
        self.now_s = 0.0
        self.scheduler = Scheduler(slots, budget, clock_s=lambda: self.now_s)
        self.cache = CacheModel(slots)
        self.live: list[Work] = []
        self.finished: list[Work] = []
        self.cancelled: list[Work] = []
        self.count = 0
        self.held = False

    @rule(
        shared=st.integers(0, len(PREFIX)),
        own=st.lists(st.integers(0, 3), min_size=1, max_size=30),
        adapter=st.sampled_from(["", "a", "b"]),
        new=st.integers(1, 4),
        claim=st.builds(
            Claim,
            flow=st.sampled_from(["", "x", "y"]),
            lane=st.sampled_from(["interactive", "interactive", "batch"]),
            reservation=st.sampled_from(["", "", "gold"]),
        ),
    )
    def add(self, shared: int, own: list[int], adapter: str, new: int, claim: Claim) -> None:
        self.count += 1
        work = make_work(f"w{self.count}", PREFIX[:shared] + own, adapter, new)
        work.claim = claim
        self.live.append(work)
        self.scheduler.add(work)

    @rule(index=st.integers(0, 20))
    def cancel(self, index: int) -> None:
        if self.live:
            work = self.live.pop(index % len(self.live))
            self.scheduler.cancel(work)
            self.cancelled.append(work)

    @rule(slots=st.integers(0, 4), tokens=st.integers(1, 500))
    def hold(self, slots: int, tokens: int) -> None:
        slots = min(slots, self.scheduler.slots - 1)
        self.held = bool(slots)
        self.scheduler.hold([ReservedShare("gold", slots, tokens)] if slots else [])

    @rule()
    def step(self) -> None:
        running = [work for work in self.scheduler.running if not work.cancelled]
        answers = [work for work in running if work.wanted == 1 and work.claim.lane == "interactive"]
        progress = set() if self.held else {work.id for work in answers}
        busy = bool(self.live)
        plan = self.scheduler.plan()
        assert sum(chunk.end - chunk.start for chunk in plan.chunks) <= self.scheduler.budget_tokens
        planned = [chunk.work.id for chunk in plan.chunks]
        assert len(planned) == len(set(planned))
        assert progress <= set(planned), "an answer was left without a token, and nothing is held"
        assert planned or not busy, "somebody wants a token and nobody gets one"
        assert not any(chunk.work.cancelled for chunk in plan.chunks)
        self.cache.run(plan)
        seconds = 1e-3 * (1 + sum(chunk.end - chunk.start for chunk in plan.chunks))
        self.now_s += seconds
        self.scheduler.commit(plan, seconds)
        for chunk in plan.chunks:
            if chunk.ends:
                chunk.work.tokens.append(len(chunk.work.tokens) % 7)
                if len(chunk.work.tokens) >= chunk.work.most_tokens:
                    self.scheduler.release(chunk.work)
                    self.live.remove(chunk.work)
                    self.finished.append(chunk.work)

    @rule()
    def fail(self) -> None:
        """A step that breaks down: its works end, and nobody knows what lies in the cache."""
        for chunk in self.scheduler.plan().chunks:
            self.scheduler.release(chunk.work)
            self.live.remove(chunk.work)
        self.scheduler.distrust()
        self.cache = CacheModel(self.scheduler.slots)

    @rule(adapter=st.sampled_from(["a", "b"]))
    def forget(self, adapter: str) -> None:
        if not self.scheduler.uses(adapter):
            self.scheduler.forget(adapter)
            for slot, cell in enumerate(self.cache.cells):
                if cell and cell[0][0] == adapter:
                    self.cache.cells[slot] = []

    @invariant()
    def each_running_work_has_a_slot_of_its_own(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        slots = [work.slot for work in self.scheduler.running]
        assert len(slots) == len(set(slots))
        assert all(0 <= slot < self.scheduler.slots for slot in slots)
        known = [work for work in [*self.scheduler.running, *self.scheduler.waiting] if not work.cancelled]
        assert len(known) == len(set(known))
        assert {work.id for work in known} == {work.id for work in self.live}

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for _ in range(10_000):
            if not self.live:
                break
            self.step()
        assert not self.live, "a work was never finished"
        self.scheduler.plan()
        assert not self.scheduler.running
        assert not self.scheduler.waiting


TestServing = Serving.TestCase
TestServing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_the_common_prefix_is_what_comparing_one_by_one_finds(one: list[int], other: list[int]) -> None:
    expected = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        expected += 1
    assert common_prefix(one, other, min(len(one), len(other))) == expected


def test_who_was_paused_in_a_step_that_failed_computes_all_of_it_again() -> None:
    scheduler, cache = Scheduler(slots=4, budget_tokens=16), CacheModel(4)
    paused = make_work("paused", [1, 2, 3], new=5)
    paused.claim = Claim(lane="batch")
    scheduler.add(paused)
    plan = scheduler.plan()
    cache.run(plan)
    scheduler.commit(plan)
    paused.tokens.append(4)
    scheduler.add(make_work("long", list(range(40))))
    for chunk in scheduler.plan().chunks:
        assert chunk.work is not paused
        scheduler.release(chunk.work)
    scheduler.distrust()
    plan = scheduler.plan()
    CacheModel(4).run(plan)
    assert [(chunk.start, chunk.end) for chunk in plan.chunks] == [(0, 4)]


def test_a_long_prompt_does_not_hold_up_answers_under_way() -> None:
    scheduler = Scheduler(slots=4, budget_tokens=8)
    answering = [make_work(f"a{i}", [i]) for i in range(3)]
    for work in answering:
        scheduler.add(work)
    scheduler.commit(scheduler.plan())
    for work in answering:
        work.tokens.append(9)
    scheduler.add(make_work("long", list(range(100))))
    plan = scheduler.plan()
    assert [(chunk.work.id, chunk.end - chunk.start) for chunk in plan.chunks] == [
        ("a0", 1),
        ("a1", 1),
        ("a2", 1),
        ("long", 5),
    ]


def test_a_prompt_with_a_cached_beginning_computes_only_the_rest() -> None:
    scheduler = Scheduler(slots=2, budget_tokens=200)
    scheduler.add(make_work("first", [*PREFIX, 1, 2]))
    scheduler.commit(scheduler.plan())
    scheduler.add(make_work("second", [*PREFIX, 7, 8, 9]))
    plan = scheduler.plan()
    assert [copy.count for copy in plan.copies] == [len(PREFIX)]
    assert [(c.start, c.end) for c in plan.chunks if c.work.id == "second"] == [(len(PREFIX), len(PREFIX) + 3)]


def test_a_cached_beginning_is_never_shared_between_adapters() -> None:
    scheduler = Scheduler(slots=2, budget_tokens=200)
    scheduler.add(make_work("first", PREFIX, adapter="a"))
    scheduler.commit(scheduler.plan())
    scheduler.add(make_work("second", PREFIX, adapter="b"))
    assert scheduler.plan().copies == []


def test_the_same_prompt_again_still_computes_its_last_token() -> None:
    scheduler = Scheduler(slots=2, budget_tokens=200)
    for name in ("first", "second"):
        scheduler.add(make_work(name, PREFIX))
        plan = scheduler.plan()
        scheduler.commit(plan)
    chunk = next(chunk for chunk in plan.chunks if chunk.work.id == "second")
    assert (chunk.start, chunk.end, chunk.ends) == (len(PREFIX) - 1, len(PREFIX), True)
    assert len(PREFIX) > SHORTEST_PREFIX_TOKENS


def test_the_scheduler_imports_no_torch() -> None:
    code = "import sys; import espalier.serve.scheduler; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
