"""A canary's last requests judged by themselves: what breaks late is seen soon, and chance takes back no more.

Every draw has a fixed seed; a "look" is what the server does each second.
"""

from __future__ import annotations

import random

import pytest

from espalier.core.types import Canary
from espalier.gateway.canary import Outcomes, Step, Verdict, join, judge, judge_slice
from espalier.metrics.proportion import wilson

RULES = Canary(candidate="new", step_s=1e6, min_requests=20, max_error_rate=0.02, max_latency_ratio=1.5)
EACH_LOOK = {"new": 10, "old": 30}


def look(step: Step, *, failing: tuple[str, ...] = (), slow: tuple[str, ...] = (), rules: Canary = RULES) -> Verdict:
    """Ten answers of the candidate and thirty of the other version, then the verdict."""
    for model, count in EACH_LOOK.items():
        for number in range(count):
            step.add(model, (400 if model in slow else 100) + number % 7, failed=model in failing)
    return step.judge(rules, 1)


def make_long_step(looks: int = 500) -> Step:
    """A busy step of 5,000 sound answers of the candidate."""
    step = Step()
    assert {look(step).action for _ in range(looks)} == {"wait"}
    return step


def looks_until_rollback(step: Step, most: int, **broken: tuple[str, ...]) -> tuple[int, str]:
    for number in range(1, most + 1):
        verdict = look(step, **broken)
        if verdict.action == "rollback":
            return number, verdict.reason
    return most + 1, ""


def test_an_outage_late_in_a_long_step_is_seen_within_two_slices() -> None:
    step = make_long_step()
    looks, reason = looks_until_rollback(step, 10, failing=("new",))
    assert looks <= 10  # 100 requests; before the outage a slice may have been half full of sound answers
    assert "of its last 50 requests failed" in reason and "2.0% are allowed" in reason
    whole = step.whole["new"]
    assert judge(RULES, whole, step.whole["old"], 1).action == "wait", "the whole step does not show it by far"


def test_an_outage_of_half_the_requests_is_seen_within_two_slices() -> None:
    step = make_long_step()
    verdict = Verdict("wait")
    for number in range(100):
        for side in ("old", "old", "old", "new"):
            step.add(side, 100, failed=side == "new" and number % 2 == 0)
        if verdict.action == "wait":
            verdict = step.judge(RULES, 1)
    assert verdict.action == "rollback"


def test_a_candidate_that_turns_slow_late_in_a_long_step_is_seen_within_two_slices() -> None:
    step = make_long_step()
    looks, reason = looks_until_rollback(step, 10, slow=("new",))
    assert looks <= 10
    assert "of its last 50 answers took longer than 159 ms" in reason
    assert judge(RULES, step.whole["new"], step.whole["old"], 1).action == "wait"


@pytest.mark.parametrize("broken", ["failing", "slow"])
def test_what_befalls_everybody_late_in_a_step_is_nobody_s_fault(broken: str) -> None:
    step = make_long_step()
    assert looks_until_rollback(step, 40, **{broken: ("new", "old")}) == (41, "")


def test_a_short_outage_of_everybody_is_not_held_against_the_candidate_afterwards() -> None:
    step = make_long_step()
    looks_until_rollback(step, 5, failing=("new", "old"))
    assert looks_until_rollback(step, 200) == (201, "")


def test_no_step_goes_on_over_an_outage_that_has_just_begun() -> None:
    step = make_long_step()
    for _ in range(3):
        step.add("new", 100, failed=True)
    for number in range(12):
        step.add("new", 100, failed=number % 2 == 0)
    assert step.judge(RULES.model_copy(update={"step_s": 1.0}), 2).action == "rollback"
    assert make_long_step(3).judge(RULES.model_copy(update={"step_s": 1.0}), 2).action == "step"


def test_a_slice_is_as_long_as_the_requests_that_are_asked_for() -> None:
    rules, step = RULES.model_copy(update={"min_requests": 200}), Step()
    for number in range(1, 61):
        look(step, rules=rules)
        assert step.slices == number // 20


def test_a_candidate_that_has_all_requests_is_held_against_what_is_allowed_alone() -> None:
    sound, broken = Outcomes(50, 3), Outcomes(50, 20)
    assert judge_slice(RULES, sound, Outcomes(), 100).action == "wait"
    assert judge_slice(RULES, broken, Outcomes(), 100).action == "rollback"


def test_twice_as_slow_in_the_middle_is_allowed_where_the_slowest_are_as_fast() -> None:
    """What is judged is the 95th percentile, in the slice as in the whole."""
    candidate, others = Outcomes(), Outcomes()
    for number in range(50):
        candidate.add(200 + number % 9, failed=False)
        others.add(300 if number % 10 == 0 else 100, failed=False)
    assert judge_slice(RULES, candidate, others, 1).action == "wait"
    seen_by_chance = Outcomes()  # none of the slow ones fell into this slice: the whole step knows of them
    for number in range(50):
        seen_by_chance.add(100 + number % 9, failed=False)
    assert judge_slice(RULES, candidate, seen_by_chance, 1, usual_ms=300).action == "wait"
    assert judge_slice(RULES, candidate, seen_by_chance, 1, usual_ms=100).action == "rollback"


def takes_back_by_the_whole_alone(step: Step) -> bool:
    """The rule without slices: Wilson's bound at 95 % however long the step."""
    candidate, others = step.whole["new"], step.whole["old"]
    surely = wilson(candidate.failed, candidate.asked).low
    return candidate.failed >= 3 and surely > max(RULES.max_error_rate, others.error_rate)


@pytest.mark.parametrize("rate", [0.02, 0.016, 0.01])
def test_sound_candidates_are_taken_back_no_more_often_than_by_the_whole_alone(rate: float) -> None:
    """60 steps of 3,000 requests, as many failures on both sides; the first rate is the one allowed: the worst case."""
    draw = random.Random(11)
    before = now = by_slices = 0
    for _ in range(60):
        step = Step()
        taken_before, verdict = False, Verdict("wait")
        for _ in range(150):
            for model, count in (("new", 20), ("old", 60)):
                failed = sum(draw.random() < rate for _ in range(count))
                for seen in (step.whole, step.recent):
                    seen[model].asked += count
                    seen[model].failed += failed
            taken_before = taken_before or takes_back_by_the_whole_alone(step)
            if verdict.action == "wait":
                verdict = step.judge(RULES, 1)
        before += taken_before
        now += verdict.action == "rollback"
        by_slices += "its last" in verdict.reason
    assert now <= before
    assert by_slices == 0
    if rate == RULES.max_error_rate:
        assert before >= 5, "the comparison says something only where the old rule errs"


@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_slices_of_a_candidate_no_slower_than_allowed_take_back_none(ratio: float) -> None:
    """Latencies as services have them (log-normal), the candidate's longer by a factor up to the allowed one."""
    draw = random.Random(5)
    everyone = Outcomes()
    for _ in range(2000):
        everyone.add(round(draw.lognormvariate(5, 0.6)), failed=False)
    for number in range(1, 401):
        candidate, others = Outcomes(), Outcomes()
        for _ in range(50):
            candidate.add(round(ratio * draw.lognormvariate(5, 0.6)), failed=False)
            others.add(round(draw.lognormvariate(5, 0.6)), failed=False)
        assert judge_slice(RULES, candidate, others, number % 20 + 1, everyone.p95_ms()).action == "wait"


def test_the_levels_of_all_slices_sum_to_one_in_a_thousand() -> None:
    """The smallest number of failures that takes back grows with the slice, and slowly."""

    def fewest(number: int) -> int:
        return next(
            failed
            for failed in range(51)
            if judge_slice(RULES, Outcomes(50, failed), join([Outcomes(5000, 0)]), number).action == "rollback"
        )

    needed = [fewest(number) for number in (1, 10, 100, 1000, 10_000)]
    assert needed == sorted(needed)
    assert needed[0] >= 5 and needed[-1] <= 15
