"""The autoscaler on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from espalier.core.ports import EngineLoad
from espalier.serve.autoscale import Autoscaler, ScaleRule

RULE = ScaleRule(
    min_replicas=1, max_replicas=8, target_queue_s=1, target_tokens_in_flight=1000, cooldown_up_s=10, cooldown_s=60
)
IDLE = EngineLoad()


def busy(tokens: int = 0, queue_s: float = 0.0) -> EngineLoad:
    return EngineLoad(running=1, waiting=int(queue_s > 0), tokens_in_flight=tokens, queue_s=queue_s)


def play(scaler: Autoscaler, load: Callable[[int, int], EngineLoad], seconds: int, replicas: int) -> list[int]:
    """The count after each second; load(second, replicas)."""
    counts = []
    for second in range(seconds):
        replicas = scaler.decide(float(second), load(second, replicas), replicas)
        counts.append(replicas)
    return counts


def test_tokens_in_flight_call_for_as_many_as_carry_them() -> None:
    assert Autoscaler(RULE).decide(0, busy(tokens=4500), 1) == 5


def test_a_queue_calls_for_more_though_tokens_do_not_and_at_most_doubles() -> None:
    assert Autoscaler(RULE).decide(0, busy(tokens=100, queue_s=1.5), 2) == 3
    assert Autoscaler(RULE).decide(0, busy(tokens=100, queue_s=500), 2) == 4


def test_there_are_never_more_nor_fewer_than_the_rule_allows() -> None:
    assert Autoscaler(RULE).decide(0, busy(tokens=10**9), 1) == 8
    assert Autoscaler(RULE).decide(0, IDLE, 0) == 1
    assert Autoscaler(RULE).decide(0, IDLE, 12) == 8


def test_near_its_target_nothing_changes() -> None:
    assert play(Autoscaler(RULE), lambda *_: busy(tokens=3250), 300, 3) == [3] * 300


def test_having_grown_it_waits_to_see_what_that_did() -> None:
    counts = play(Autoscaler(RULE), lambda second, _: busy(queue_s=5), 30, 1)
    assert counts[:10] == [2] * 10 and counts[10:20] == [4] * 10 and counts[20:] == [8] * 10


def test_it_shrinks_only_after_a_whole_cooldown_in_which_fewer_would_have_done() -> None:
    counts = play(Autoscaler(RULE), lambda second, _: busy(tokens=6000 if second == 30 else 900), 120, 6)
    assert counts[:91] == [6] * 91
    assert counts[91:] == [1] * 29


def test_a_swinging_load_does_not_swing_the_count() -> None:
    counts = play(Autoscaler(RULE), lambda second, _: busy(tokens=4000 if second % 20 < 10 else 500), 600, 1)
    assert set(counts[1:]) == {4}


def test_it_goes_to_zero_after_idling_and_comes_back_with_the_first_request() -> None:
    scaler = Autoscaler(ScaleRule(min_replicas=0, max_replicas=4, cooldown_up_s=10, cooldown_s=60))
    counts = play(scaler, lambda second, _: busy(tokens=1) if second < 5 else IDLE, 100, 1)
    assert counts[:64] == [1] * 64 and counts[70:] == [0] * 30
    assert scaler.decide(100, EngineLoad(waiting=1), 0) == 1


def test_a_steady_load_is_met_and_then_left_alone() -> None:
    """A closed loop: each replica works off 1,000 tokens a second, 5,500 come in, what is left waits."""
    scaler, backlog, replicas, counts = Autoscaler(RULE), 0.0, 1, []
    for second in range(400):
        backlog = max(0.0, backlog + 5500 - 1000 * replicas)
        load = busy(tokens=5500 + int(backlog), queue_s=backlog / (1000 * replicas))
        replicas = scaler.decide(float(second), load, replicas)
        counts.append(replicas)
    assert counts[200:] == [6] * 200, counts[150:]


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50_000), st.floats(0, 1000), st.integers(0, 5)), max_size=60),
    st.integers(0, 3),
    st.integers(0, 6),
)
def test_whatever_the_load_the_count_stays_within_bounds_and_cooldowns_hold(
    history: list[tuple[float, int, float, int]], fewest: int, above: int
) -> None:
    most = max(1, fewest + above)
    rule = ScaleRule(min_replicas=fewest, max_replicas=most, cooldown_up_s=10, cooldown_s=60)
    scaler, now_s, replicas, grew_s, wishes = Autoscaler(rule), 0.0, max(1, fewest), -100.0, [0.0]
    for wait_s, tokens, queue_s, running in history:
        now_s += wait_s
        before = replicas
        replicas = scaler.decide(now_s, EngineLoad(running, 0, tokens, queue_s), before)
        assert fewest <= replicas <= most
        if replicas > before > 0:
            assert now_s - grew_s >= rule.cooldown_up_s
            grew_s = now_s
        elif replicas > before:
            grew_s = now_s
        if replicas < before:
            assert now_s - wishes[0] >= rule.cooldown_s
