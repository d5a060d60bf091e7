"""Schedules: their ends, their shapes, and the shared trunk of wsd runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.train.schedule import ScheduleName, lr_scale


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "wsd"])
def test_warm_up_rises_to_the_peak(name: ScheduleName) -> None:
    rates = [lr_scale(name, step, steps=100, warmup_steps=10, decay_steps=20) for step in range(11)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "half"), [("cosine", 0.5), ("linear", 0.5), ("constant", 1.0), ("wsd", 1.0)])
def test_half_way_down(name: ScheduleName, half: float) -> None:
    assert lr_scale(name, 50, steps=100, warmup_steps=0, decay_steps=20) == pytest.approx(half)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
def test_the_last_step_is_nearly_at_the_floor_and_never_below(name: ScheduleName) -> None:
    rates = [lr_scale(name, step, steps=1000, warmup_steps=10, decay_steps=200, floor=0.02) for step in range(1000)]
    assert rates[-1] == pytest.approx(0.02, abs=4e-3)
    assert min(rates[10:]) >= 0.02


@given(steps=st.integers(200, 500), longer=st.integers(1, 300))
def test_wsd_runs_of_different_length_share_their_trunk(steps: int, longer: int) -> None:
    trunk = steps - 50
    one = [lr_scale("wsd", step, steps=steps, warmup_steps=10, decay_steps=50) for step in range(trunk)]
    other = [lr_scale("wsd", step, steps=steps + longer, warmup_steps=10, decay_steps=50) for step in range(trunk)]
    assert one == other
