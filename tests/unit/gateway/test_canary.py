from __future__ import annotations

import random

import pytest

from espalier.core.types import Canary
from espalier.gateway.canary import Outcomes, join, judge

RULES = Canary(candidate="new", step_s=60, min_requests=20, max_error_rate=0.05, max_latency_ratio=1.5)


def outcomes(asked: int, failed: int = 0, latency_ms: int = 100) -> Outcomes:
    seen = Outcomes()
    for number in range(asked):
        seen.add(latency_ms, failed=number < failed)
    return seen


def test_a_candidate_that_always_fails_is_taken_back_after_three_requests() -> None:
    assert judge(RULES, outcomes(2, failed=2), outcomes(100), 1).action == "wait"
    verdict = judge(RULES, outcomes(3, failed=3), outcomes(100), 1)
    assert verdict.action == "rollback" and "3 of 3" in verdict.reason


def test_failures_that_chance_explains_are_waited_out() -> None:
    assert judge(RULES, outcomes(100, failed=6), outcomes(1000), 1).action == "wait"


def test_an_engine_that_fails_everybody_blames_nobody() -> None:
    assert judge(RULES, outcomes(50, failed=25), outcomes(950, failed=475), 1).action == "wait"


def test_a_candidate_that_is_slow_is_taken_back_once_enough_were_answered() -> None:
    assert judge(RULES, outcomes(19, latency_ms=400), outcomes(100), 1).action == "wait"
    verdict = judge(RULES, outcomes(20, latency_ms=400), outcomes(100), 1)
    assert verdict.action == "rollback" and "20 of 20" in verdict.reason and "150 ms" in verdict.reason


def test_a_few_slow_answers_are_waited_out() -> None:
    seen = outcomes(28)
    for _ in range(2):
        seen.add(4000, failed=False)
    assert judge(RULES, seen, outcomes(100), 1).action == "wait"
    for _ in range(3):
        seen.add(4000, failed=False)
    assert judge(RULES, seen, outcomes(100), 1).action == "rollback"


def test_a_step_ends_when_it_has_lasted_and_enough_were_answered() -> None:
    assert judge(RULES, outcomes(200), outcomes(1000), 59).action == "wait"
    assert judge(RULES, outcomes(19), outcomes(1000), 600).action == "wait"
    assert judge(RULES, outcomes(20), outcomes(1000), 60).action == "step"


def test_a_sound_candidate_is_hardly_ever_taken_back_by_chance() -> None:
    """The same 1 % of failures on both sides, looked at after every request of a step of 300."""
    draw = random.Random(7)
    taken_back = 0
    for _ in range(200):
        candidate, others = Outcomes(), outcomes(3000, failed=30)
        for _ in range(300):
            candidate.add(100, failed=draw.random() < 0.01)
            if judge(RULES, candidate, others, 1).action == "rollback":
                taken_back += 1
                break
    assert taken_back <= 4


def test_a_slow_hour_that_everybody_had_is_not_the_candidate_s_fault() -> None:
    """The others have had many more answers since, so of them a shorter time would be looked at."""
    candidate, others = Outcomes(), Outcomes()
    for number in range(40_000):
        latency_ms = 400 if number < 8_000 else 100
        (candidate if number % 20 == 0 else others).add(latency_ms, failed=False)
        if number % 1000 == 0:
            assert judge(RULES, candidate, others, 1).action == "wait"
    assert judge(RULES, candidate, others, 1).action == "wait"


def test_every_other_version_has_its_part_in_what_a_candidate_is_held_against() -> None:
    joined = join([outcomes(9_000, latency_ms=300), outcomes(1_000, failed=10, latency_ms=100)])
    assert (joined.asked, joined.failed, joined.p95_ms()) == (10_000, 10, 300)
    assert joined.latencies_ms.count(300) / len(joined.latencies_ms) == pytest.approx(0.9, abs=0.01)
    small = join([outcomes(30, latency_ms=300), outcomes(20)])
    assert sorted(small.latencies_ms) == [100] * 20 + [300] * 30
