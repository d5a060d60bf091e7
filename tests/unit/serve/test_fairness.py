"""Weighted fair queueing: shares, order within a flow, and that nobody is kept from being served."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.ports import Lane
from espalier.serve.fairness import FairQueue
from espalier.serve.scheduler import Claim, Plan, Scheduler, Work

LONGEST = 40


def make_work(flow: str, prompt: int, answer: int, name: str = "", lane: Lane = "interactive") -> Work:
    # No two prompts begin alike, so nothing is found in the cache and every token is computed.
    make_work.count += 1  # type: ignore[attr-defined]
    tokens = [make_work.count * 1000 + i for i in range(prompt)]  # type: ignore[attr-defined]
    return Work(name or flow, "", tokens, prompt, prompt + answer, claim=Claim(flow, lane))


make_work.count = 0  # type: ignore[attr-defined]


def run_step(scheduler: Scheduler) -> tuple[Plan, list[Work]]:
    """A step on a machine that answers token 7; returns what ended with it."""
    plan, done = scheduler.plan(), []
    scheduler.commit(plan)
    for chunk in plan.chunks:
        if chunk.ends:
            chunk.work.tokens.append(7)
            if len(chunk.work.tokens) >= chunk.work.most_tokens:
                scheduler.release(chunk.work)
                done.append(chunk.work)
    return plan, done


sizes = st.tuples(st.integers(1, LONGEST), st.integers(1, LONGEST))


@settings(max_examples=40, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=25), st.integers(1, 4), st.integers(8, 64))
def test_works_of_one_flow_are_admitted_first_come_first_served(
    wanted: list[tuple[int, int]], slots: int, budget: int
) -> None:
    scheduler = Scheduler(slots, budget)
    works = [make_work("only", *size, name=f"{i}") for i, size in enumerate(wanted)]
    for work in works:
        scheduler.add(work)
    admitted: list[Work] = []
    while scheduler.busy:
        plan, _ = run_step(scheduler)
        admitted += [chunk.work for chunk in plan.chunks if chunk.work not in admitted]
    assert admitted == works


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.floats(0.25, 4.0), min_size=2),
    st.dictionaries(st.sampled_from("abc"), sizes, min_size=3, max_size=3),
    st.integers(1, 6),
    st.integers(20, 120),
)
def test_flows_that_always_ask_get_tokens_by_their_weights_within_a_request_for_each_slot(
    weights: dict[str, float], wanted: dict[str, tuple[int, int]], slots: int, steps: int
) -> None:
    scheduler = Scheduler(slots, 64, weights=weights)
    served = dict.fromkeys(weights, 0)
    for _ in range(steps):
        for flow in weights:  # nobody's queue ever runs dry
            while sum(work.claim.flow == flow for work in scheduler.waiting) < 2:
                scheduler.add(make_work(flow, *wanted[flow]))
        plan, _ = run_step(scheduler)
        for chunk in plan.chunks:
            served[chunk.work.claim.flow] += chunk.end - chunk.start
    largest = {flow: sum(wanted[flow]) / weight for flow, weight in weights.items()}
    for one in weights:
        for other in weights:
            # A work is charged as it is admitted, so what is admitted differs by one request of each; what is computed
            # lags behind by no more than the slots can hold.
            apart = abs(served[one] / weights[one] - served[other] / weights[other])
            assert apart <= largest[one] + largest[other] + slots * max(largest[one], largest[other])


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.floats(0.25, 4.0), min_size=2),
    st.lists(sizes, min_size=1, max_size=4),
    st.integers(10, 60),
)
def test_what_is_admitted_differs_by_no_more_than_one_request_of_each_flow(
    weights: dict[str, float], wanted: list[tuple[int, int]], count: int
) -> None:
    queue = FairQueue("test", weights)
    admitted = dict.fromkeys(weights, 0.0)
    largest = max(map(sum, wanted))
    for flow in weights:
        for i in range(count):
            queue.add(make_work(flow, *wanted[i % len(wanted)]), flow)
    for _ in range(count):  # of count * flows works: every queue still has one
        best = queue.best()
        assert best is not None
        work = queue.take(best[1])
        admitted[work.claim.flow] += work.most_tokens / weights[work.claim.flow]
    for one in weights:
        for other in weights:
            assert abs(admitted[one] - admitted[other]) <= largest / weights[one] + largest / weights[other] + 1e-6


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(1, 4), st.integers(1, 30))
def test_a_flood_of_one_flow_holds_up_another_by_no_more_than_what_runs(
    wanted: tuple[int, int], slots: int, flood: int
) -> None:
    scheduler = Scheduler(slots, 64)
    for _ in range(flood * 10):
        scheduler.add(make_work("flood", *wanted))
    for _ in range(flood):
        run_step(scheduler)
    asked = make_work("quiet", 5, 5)
    scheduler.add(asked)
    for _ in range(2 * sum(wanted) + 2):  # each work that runs ends within as many steps as it has tokens
        if asked.slot >= 0 or asked.computed:
            break
        run_step(scheduler)
        scheduler.add(make_work("flood", *wanted))
    assert asked.computed or asked.slot >= 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), sizes), min_size=1, max_size=30), st.integers(1, 5), st.integers(5, 64)
)
def test_no_token_of_the_budget_and_no_slot_is_left_while_somebody_could_use_it(
    wanted: list[tuple[str, tuple[int, int]]], slots: int, budget: int
) -> None:
    scheduler = Scheduler(slots, budget)
    for flow, size in wanted:
        scheduler.add(make_work(flow, *size))
    while scheduler.busy:
        plan = scheduler.plan()
        used = sum(chunk.end - chunk.start for chunk in plan.chunks)
        satisfied = all(any(chunk.work is work and chunk.ends for chunk in plan.chunks) for work in scheduler.running)
        full = len(scheduler.running) == slots or not scheduler.waiting
        assert used == scheduler.budget_tokens or (satisfied and full)
        scheduler.commit(plan)
        for chunk in plan.chunks:
            if chunk.ends:
                chunk.work.tokens.append(7)
                if len(chunk.work.tokens) >= chunk.work.most_tokens:
                    scheduler.release(chunk.work)


def test_a_flow_that_asked_for_nothing_is_not_owed_for_it() -> None:
    queue = FairQueue("test")
    for _ in range(20):
        queue.add(make_work("busy", 10, 10), "busy")
    for _ in range(10):
        queue.take(queue.flows["busy"])
    for _ in range(10):
        queue.add(make_work("fresh", 10, 10), "fresh")
    order = []
    for _ in range(8):
        best = queue.best()
        assert best is not None
        order.append(queue.take(best[1]).claim.flow)
    assert order.count("busy") == order.count("fresh") == 4


def test_an_answer_shorter_than_expected_is_charged_by_what_it_took() -> None:
    scheduler = Scheduler(1, 64)
    for _ in range(20):
        scheduler.add(make_work("short", 10, 1000))
        scheduler.add(make_work("long", 10, 50))
    served: dict[str, int] = {"short": 0, "long": 0}
    while all(flow.waiting for flow in scheduler._demand.flows.values()):
        plan = scheduler.plan()
        scheduler.commit(plan)
        for chunk in plan.chunks:
            served[chunk.work.claim.flow] += chunk.end - chunk.start
            if chunk.ends:
                chunk.work.tokens.append(7)
                limit = 5 if chunk.work.claim.flow == "short" else 50
                if len(chunk.work.answer) >= limit:
                    scheduler.release(chunk.work)
    # Charged with what it asked for, `short` would have had one work while `long` had all of its own.
    assert abs(served["short"] - served["long"]) <= 14 + 59


def test_a_batch_work_gives_its_slot_up_and_begins_again_with_its_tokens() -> None:
    scheduler = Scheduler(2, 64)
    batch = [make_work("batch", 4, 20, name=f"b{i}", lane="batch") for i in range(3)]
    for work in batch:
        scheduler.add(work)
    for _ in range(5):
        run_step(scheduler)
    assert [work.slot >= 0 for work in batch] == [True, True, False]
    kept = list(batch[1].tokens)
    asked = [make_work("person", 4, 3, name=f"i{i}") for i in range(2)]
    for work in asked:
        scheduler.add(work)
    plan, _ = run_step(scheduler)
    assert {chunk.work.id for chunk in plan.chunks} == {"i0", "i1"}
    assert batch[1].slot < 0
    assert batch[1].tokens == kept
    while scheduler.busy:
        run_step(scheduler)
    assert all(len(work.tokens) == work.most_tokens for work in [*batch, *asked])


def test_batch_gets_no_token_while_people_use_up_the_budget() -> None:
    scheduler = Scheduler(4, 16)
    scheduler.add(make_work("batch", 2, 50, lane="batch"))
    run_step(scheduler)
    scheduler.add(make_work("person", 40, 2))
    plan, _ = run_step(scheduler)
    assert {chunk.work.claim.lane for chunk in plan.chunks} == {"interactive"}


def test_a_batch_work_that_lost_its_slot_can_be_cancelled() -> None:
    scheduler = Scheduler(1, 16)
    batch = make_work("batch", 2, 50, lane="batch")
    scheduler.add(batch)
    run_step(scheduler)
    scheduler.add(make_work("person", 2, 2))
    run_step(scheduler)
    scheduler.cancel(batch)
    while scheduler.busy:
        run_step(scheduler)
    assert batch.slot < 0
    assert len(batch.tokens) < batch.most_tokens
