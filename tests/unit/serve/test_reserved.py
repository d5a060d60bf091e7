"""Reserved capacity against a machine whose time is computed: the scheduler, its cost model and a clock; no torch."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import RateLimited, Unavailable
from espalier.core.ports import Lane, ReservedShare
from espalier.serve.admission import Bounds, check_admission, predict_wait_s
from espalier.serve.fairness import Crowd
from espalier.serve.scheduler import Claim, Plan, Scheduler, Work
from espalier.serve.stepcost import Shape, StepCost

SHARE = ReservedShare("gold", slots=2, tokens_per_minute=600_000)


def true_cost_s(shape: Shape) -> float:
    """A machine of the kind that CPUs are: a step of nothing takes 3 ms, a row 0.4 ms, a prompt token 0.15 ms."""
    return 3e-3 + 4e-4 * shape.rows + 1.5e-4 * shape.prompt + 1e-8 * shape.read


@dataclass
class Machine:
    """Runs a scheduler's steps, each taking the time that its shape takes, give or take a tenth."""

    scheduler: Scheduler = field(init=False)
    slots: int = 16
    now_s: float = 0.0
    first_s: dict[Work, float] = field(default_factory=dict)
    done: list[Work] = field(default_factory=list)
    longest_s: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.slots, 256, clock_s=lambda: self.now_s)
        self._noise = random.Random(0)
        self._count = 0

    def ask(self, reservation: str = "", prompt: int = 60, answer: int = 20, lane: Lane = "interactive") -> Work:
        self._count += 1
        tokens = [self._count * 1000 + i for i in range(prompt)]
        claim = Claim(reservation or "others", lane, reservation)
        work = Work(f"{self._count}", "", tokens, prompt, prompt + answer, claim=claim)
        self.scheduler.add(work)
        return work

    def step(self) -> Plan:
        plan = self.scheduler.plan()
        shape = Shape()
        for chunk in plan.chunks:
            shape.add(chunk.start, chunk.end)
        seconds = true_cost_s(shape) * self._noise.uniform(0.95, 1.05) if plan.chunks else 1e-3
        self.now_s += seconds
        self.longest_s = max(self.longest_s, seconds)
        self.scheduler.commit(plan, seconds if plan.chunks else 0.0)
        for chunk in plan.chunks:
            if chunk.ends:
                self.first_s.setdefault(chunk.work, self.now_s)
                chunk.work.tokens.append(7)
                if len(chunk.work.tokens) >= chunk.work.most_tokens:
                    self.scheduler.release(chunk.work)
                    self.done.append(chunk.work)
        return plan


def measure(*, flood: bool, reserved: bool, seconds: float = 20.0) -> tuple[float, float]:
    """(p95 time to first token in s, tokens a second while answering) of one asker of the gold model."""
    machine = Machine()
    if reserved:
        machine.scheduler.hold([SHARE])
    waits, spans, tokens = [], 0.0, 0
    asked: Work | None = None
    asked_s, next_s, pause = 0.0, 1.0, random.Random(1)
    while machine.now_s < seconds:
        while flood and len(machine.scheduler.waiting) < 20:
            machine.ask(prompt=100, answer=100)
        if asked is None and machine.now_s >= next_s:
            asked_s, asked = next_s, machine.ask("gold" if reserved else "", prompt=60, answer=20)
            asked.claim = Claim("gold", "interactive", asked.claim.reservation)
        machine.step()
        if asked is not None and len(asked.tokens) >= asked.most_tokens:
            waits.append(machine.first_s[asked] - asked_s)
            spans += machine.now_s - machine.first_s[asked]
            tokens += len(asked.answer) - 1
            asked, next_s = None, machine.now_s + pause.uniform(0.0, 0.05)
    return sorted(waits)[int(0.95 * (len(waits) - 1))], tokens / spans


def test_a_reservation_keeps_its_unloaded_figures_under_a_flood_and_without_it_they_are_lost() -> None:
    alone_wait_s, alone_rate = measure(flood=False, reserved=True)
    kept_wait_s, kept_rate = measure(flood=True, reserved=True)
    lost_wait_s, lost_rate = measure(flood=True, reserved=False)
    assert kept_wait_s <= 1.3 * alone_wait_s + 3.5e-3  # and a step of one row, which is the shortest there is
    assert kept_rate >= alone_rate / 1.3
    assert lost_wait_s > 2 * alone_wait_s
    assert lost_rate < alone_rate / 1.3


def test_while_reserved_requests_run_others_lengthen_a_step_within_the_slack() -> None:
    machine = Machine()
    for i in range(60):
        machine.ask(answer=50)
        for _ in range(i % 5):  # it learns what steps cost
            machine.step()
    machine.scheduler.hold([SHARE])
    machine.ask("gold", answer=200)
    for _ in range(100):
        plan = machine.step()
        own, whole = Shape(), Shape()
        for chunk in plan.chunks:
            whole.add(chunk.start, chunk.end)
            if chunk.work.guaranteed:
                own.add(chunk.start, chunk.end)
        one_more = true_cost_s(Shape(rows=1)) - true_cost_s(Shape())
        assert true_cost_s(whole) <= max(1.15 * 1.1 * true_cost_s(own), true_cost_s(own) + 1.5 * one_more)
        assert len(plan.chunks) > 1, "others came to a halt"


def test_on_demand_never_takes_a_slot_that_is_set_aside_and_batch_gives_it_up() -> None:
    machine = Machine(slots=4)
    machine.scheduler.hold([ReservedShare("gold", 2, 60_000)])
    for _ in range(10):
        machine.ask(answer=500)
        machine.ask(answer=500, lane="batch")
    for _ in range(400):
        machine.step()
    lanes = [work.claim.lane for work in machine.scheduler.running]
    assert (lanes.count("interactive"), lanes.count("batch")) == (2, 2)
    gold = [machine.ask("gold"), machine.ask("gold")]
    machine.step()
    assert all(work.slot >= 0 for work in gold)
    assert not any(work.claim.lane == "batch" for work in machine.scheduler.running)


def test_a_reservation_bursts_into_slots_that_are_free() -> None:
    machine = Machine(slots=6)
    machine.scheduler.hold([SHARE])
    gold = [machine.ask("gold", answer=40) for _ in range(6)]
    for _ in range(8):
        machine.step()
    assert all(work.slot >= 0 for work in gold)


def test_beyond_its_tokens_a_minute_a_reservation_is_served_on_demand() -> None:
    machine = Machine()
    machine.scheduler.hold([ReservedShare("gold", 4, 100)])
    works = [machine.ask("gold", prompt=40, answer=10) for _ in range(4)]
    assert [work.guaranteed for work in works] == [True, True, False, False]
    while machine.scheduler.busy:
        machine.step()
    assert len(machine.done) == 4
    machine.now_s += 30  # half a minute fills half the bucket
    works = [machine.ask("gold", prompt=40, answer=10) for _ in range(2)]
    assert [work.guaranteed for work in works] == [True, False]


def test_what_a_cancelled_or_short_answer_did_not_use_is_in_the_bucket_again() -> None:
    machine = Machine()
    machine.scheduler.hold([ReservedShare("gold", 4, 100)])
    waiting = machine.ask("gold", prompt=40, answer=60)
    machine.scheduler.cancel(waiting)
    running = machine.ask("gold", prompt=40, answer=60)
    machine.step()
    assert running.guaranteed
    machine.scheduler.cancel(running)
    machine.scheduler.plan()
    assert machine.ask("gold", prompt=40, answer=10).guaranteed


def test_a_bucket_that_was_emptied_opens_the_reservations_own_queue_again_once_it_has_filled() -> None:
    machine = Machine()
    machine.scheduler.hold([ReservedShare("gold", 2, 600)])
    for answer in (10, 900):  # the second takes far more than what the first made one expect
        work = machine.ask("gold", prompt=40, answer=answer)
        while work not in machine.done:
            machine.step()
    for _ in range(100):
        machine.ask()
    claim = Claim("gold", reservation="gold")
    assert machine.scheduler.crowd(claim).waiting == 100, "the bucket is empty: it waits with everybody"
    machine.now_s += 60
    assert machine.scheduler.crowd(claim).waiting == 0
    assert machine.ask("gold", prompt=40, answer=10).guaranteed


def test_a_reservation_that_ends_lets_its_works_go_on_on_demand() -> None:
    machine = Machine(slots=3)
    machine.scheduler.hold([ReservedShare("gold", 1, 60_000)])
    works = [machine.ask("gold", answer=30) for _ in range(6)]
    machine.step()
    machine.scheduler.hold([])
    assert not any(work.guaranteed for work in works)
    machine.scheduler.hold([ReservedShare("gold", 1, 60_000)])
    machine.ask("gold")
    while machine.scheduler.busy:
        machine.step()
    assert len(machine.done) == 7
    assert machine.scheduler._reserved.held["gold"].running == 0


def test_without_a_reservation_nothing_is_held_back() -> None:
    machine = Machine(slots=8)
    for _ in range(8):
        machine.ask(prompt=20, answer=50)
    for _ in range(5):
        machine.step()
    assert len(machine.step().chunks) == 8


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "gold", "silver"]),
            st.sampled_from(["interactive", "batch"]),
            st.integers(1, 60),
            st.integers(1, 30),
            st.integers(0, 3),
            st.booleans(),
        ),
        max_size=40,
    ),
    st.integers(4, 8),
)
def test_every_work_ends_and_every_slot_comes_back_whatever_is_held(
    asked: list[tuple[str, Lane, int, int, int, bool]], slots: int
) -> None:
    machine = Machine(slots=slots)
    shares = [ReservedShare("gold", 1, 3_000), ReservedShare("silver", 2, 500)]
    live: list[Work] = []
    cancelled = 0
    for i, (name, lane, prompt, answer, steps, leaves) in enumerate(asked):
        machine.scheduler.hold(shares if i % 7 < 5 else shares[:1])
        live.append(machine.ask(name, prompt, answer, lane))
        for _ in range(steps):
            machine.step()
        if leaves and live[len(live) // 2] not in machine.done and not live[len(live) // 2].cancelled:
            machine.scheduler.cancel(live[len(live) // 2])
            cancelled += 1
            machine.step()
            assert live[len(live) // 2].slot < 0, "a cancelled work kept its slot beyond the next plan"
    for _ in range(20_000):
        if not machine.scheduler.busy:
            break
        assert machine.step().chunks, "somebody waits and nothing is computed"
    assert len(machine.done) == len(live) - cancelled
    assert machine.scheduler.load().running == machine.scheduler.load().waiting == 0
    assert all(held.running == 0 for held in machine.scheduler._reserved.held.values())


@given(st.lists(st.tuples(st.integers(0, 32), st.integers(0, 200)), min_size=30, max_size=80))
@settings(max_examples=20, deadline=None)
def test_the_cost_model_learns_what_steps_take(shapes: list[tuple[int, int]]) -> None:
    model = StepCost()
    for rows, prompt in [*shapes, (1, 0), (32, 0), (4, 200), (32, 200), (16, 64)] * 8:
        model.learn(Shape(rows, prompt), true_cost_s(Shape(rows, prompt)))
    for probe in (Shape(1, 0), Shape(32, 0), Shape(8, 100)):
        assert model.predict_s(probe) == pytest.approx(true_cost_s(probe), rel=0.1)


def test_more_work_is_never_predicted_to_take_less_time() -> None:
    model, noise = StepCost(), random.Random(3)
    for _ in range(300):
        model.learn(Shape(noise.randrange(9), noise.randrange(90), noise.randrange(999)), noise.uniform(1e-3, 9e-3))
    small = Shape(1, 10, 100)
    for more in (Shape(2, 10, 100), Shape(1, 11, 100), Shape(1, 10, 101)):
        assert model.predict_s(more) >= model.predict_s(small)


def test_a_machine_that_stood_still_for_an_hour_refuses_nobody_for_it_and_one_that_became_slow_does() -> None:
    model = StepCost()
    for _ in range(50):
        model.learn(Shape(rows=8), 0.01)
    crowd = Crowd(waiting=4, tokens=4000, flow_waiting=4, flow_tokens=4000)
    model.learn(Shape(rows=8), 3600.0)
    check_admission(crowd, Bounds(), model.tokens_per_s)
    assert model.tokens_per_s == pytest.approx(800)
    assert model.predict_s(Shape(rows=8)) == pytest.approx(0.01, rel=1e-3)
    for _ in range(2):
        model.learn(Shape(rows=8), 0.01)
    for _ in range(20):
        model.learn(Shape(rows=8), 2.0)
    with pytest.raises(RateLimited):
        check_admission(crowd, Bounds(), model.tokens_per_s)


def test_steps_of_a_kind_not_seen_before_are_learnt_however_long_they_take() -> None:
    model = StepCost()
    for _ in range(50):
        model.learn(Shape(rows=1), 0.002)
    for _ in range(30):
        model.learn(Shape(prompt=512), 1.5)
        model.learn(Shape(rows=1), 0.002)
    assert model.predict_s(Shape(prompt=512)) == pytest.approx(1.5, rel=0.1)
    assert model.tokens_per_s == pytest.approx(513 / 1.502, rel=0.1)


@pytest.mark.parametrize(
    ("crowd", "kind"),
    [
        (Crowd(waiting=10, tokens=100), Unavailable),
        (Crowd(waiting=1, tokens=5000), Unavailable),
        (Crowd(waiting=9, tokens=100, flow_waiting=5), RateLimited),
        (Crowd(waiting=5, tokens=4000, flow_waiting=4, flow_tokens=4000), RateLimited),
    ],
)
def test_a_queue_too_long_is_refused_with_the_seconds_to_wait(crowd: Crowd, kind: type[Exception]) -> None:
    bounds = Bounds(waiting=10, waiting_per_flow=5, tokens=4500, wait_s=30.0)
    with pytest.raises(kind) as caught:
        check_admission(crowd, bounds, tokens_per_s=100.0)
    assert 1.0 <= caught.value.retry_after_s <= 60.0  # type: ignore[attr-defined]


def test_a_request_for_several_answers_needs_room_for_all_of_them_unless_nobody_waits() -> None:
    bounds = Bounds(waiting=10, waiting_per_flow=5)
    check_admission(Crowd(waiting=7, flow_waiting=2), bounds, 100.0, answers=3)
    with pytest.raises(Unavailable, match="7 answers"):
        check_admission(Crowd(waiting=7), bounds, 100.0, answers=4)
    with pytest.raises(RateLimited, match="2 of your answers"):
        check_admission(Crowd(waiting=6, flow_waiting=2), bounds, 100.0, answers=4)
    check_admission(Crowd(), bounds, 100.0, answers=128)
    with pytest.raises(Unavailable):
        check_admission(Crowd(), Bounds(waiting=0), 100.0)


def test_answers_that_follow_another_count_in_the_crowd_before_they_have_begun() -> None:
    machine, several = Machine(slots=1), Machine(slots=1)
    leader = several.ask(prompt=600, answer=20)
    leader.followers = 3
    for _ in range(4):
        machine.ask(prompt=600, answer=20)
    wants, wanted = (each.scheduler.crowd(Claim("others")) for each in (several, machine))
    assert (wants.waiting, wants.flow_waiting) == (wanted.waiting, wanted.flow_waiting) == (4, 4)
    assert wants.tokens == wanted.tokens - 3 * 600  # their prompt is copied
    assert (several.scheduler.load().waiting, several.scheduler.load().tokens_in_flight) == (4, 4 * 620)
    several.step()  # it has a slot now, and its prompt is not read to its end
    assert (leader.slot, leader.wanted > 1) == (0, True)
    begun = several.scheduler.crowd(Claim("others"))
    assert (begun.waiting, begun.flow_waiting, begun.tokens) == (3, 3, 3 * 20)
    quiet = several.scheduler.crowd(Claim("quiet"))
    assert (quiet.waiting, quiet.flow_waiting, quiet.share) == (3, 0, 0.5)


def test_a_quiet_flow_is_not_refused_for_the_flood_of_another() -> None:
    machine = Machine()
    for _ in range(300):
        machine.ask(prompt=100, answer=100)
    for _ in range(50):
        machine.step()
    rate = machine.scheduler.cost.tokens_per_s
    wait: Callable[[str], float] = lambda flow: predict_wait_s(machine.scheduler.crowd(Claim(flow)), rate)  # noqa: E731
    assert wait("others") > 10
    assert wait("quiet") == 0.0


def test_scheduling_imports_no_torch() -> None:
    modules = "scheduler, admission, stepcost, fairness, reservations, prefixes, work"
    code = f"import sys; from espalier.serve import {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
