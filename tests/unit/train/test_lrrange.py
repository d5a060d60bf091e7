"""The range test: rates grow evenly, the curve is read where it falls fastest, and nothing is left behind."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from espalier.core.errors import InvalidInput
from espalier.core.events import Event, ignore
from espalier.nn.lora import LoraSpec
from espalier.train.corpus import Source
from espalier.train.job import Job
from espalier.train.lrrange import draw_chart, grow_rates, read_curve, smooth
from espalier.train.recipe import SftSpec
from espalier.train.rehearsal import find_rate


def test_rates_grow_by_one_factor_from_the_lowest_to_the_highest() -> None:
    rates = grow_rates(1e-5, 1.0, 26)
    assert rates[0] == pytest.approx(1e-5) and rates[-1] == pytest.approx(1.0)
    assert np.diff(np.log(rates)) == pytest.approx(np.full(25, math.log(1e5) / 25))


def test_smoothing_is_the_corrected_running_mean() -> None:
    assert smooth([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    assert smooth([1.0, 2.0]) == pytest.approx([1.0, (0.9 * 0.1 * 1 + 0.1 * 2) / (1 - 0.81)])


def test_the_suggestion_is_where_the_loss_falls_fastest_and_divergence_is_found_behind_the_lowest() -> None:
    rates = grow_rates(1e-6, 10.0, 141)  # twenty steps a decade: the smoothing's lag is half of one
    position = np.log10(rates)
    losses = 1.1 + 2 / (1 + np.exp(4 * (position + 3)))  # falls around 1e-3
    losses[position > -1] += (position[position > -1] + 1) * 40  # rises from 1e-1 on
    found = read_curve(rates, losses.tolist())
    assert -3.2 < math.log10(found.suggested) < -2.3
    assert -1.5 < math.log10(found.lowest) <= -0.9
    assert found.diverged is not None and found.lowest < found.diverged < 1
    assert found.suggested < found.lowest


def test_a_loss_that_is_no_number_ends_the_curve_there() -> None:
    rates = grow_rates(1e-4, 1.0, 20)
    losses = [3.0 - 0.1 * n for n in range(15)] + [math.nan]
    found = read_curve(rates, losses)
    assert len(found.losses) == 15
    assert found.diverged == pytest.approx(rates[14])


@pytest.mark.parametrize(
    ("losses", "said"),
    [([2.0, math.inf], "ran away after 1 steps"), ([1.0 + 0.1 * n for n in range(20)], "fell at none")],
)
def test_a_curve_that_says_nothing_is_refused_with_the_reason(losses: list[float], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_curve(grow_rates(1e-4, 1.0, 20), losses)


@pytest.mark.parametrize(("lowest", "highest", "steps"), [(0.1, 0.01, 50), (1e-3, 1e-3, 50), (1e-4, 1e-1, 9)])
def test_a_range_that_is_none_is_refused(lowest: float, highest: float, steps: int) -> None:
    with pytest.raises(InvalidInput, match="range test"):
        grow_rates(lowest, highest, steps)


def test_a_real_test_tries_rates_on_the_jobs_own_steps_and_leaves_no_weights(
    tiny_base: Path, dataset: Path, tmp_path: Path
) -> None:
    spec = SftSpec(base=f"path:{tiny_base}", pack_tokens=128, packs_per_step=1, lora=LoraSpec(rank=4))
    job = Job("sft", spec, (Source("", dataset),), tmp_path / "out", tmp_path / "state", tmp_path / "cache")
    seen: list[Event] = []
    found = find_rate(job, seen.append, lowest=1e-4, highest=3.0, steps=40)
    assert found.lowest > found.suggested > 1e-4
    assert min(found.smoothed) < found.smoothed[0] - 0.5
    told = [event.data["lr"] for event in seen if event.kind == "train.step"]
    assert told[: len(found.rates)] == pytest.approx(list(found.rates))
    assert "<- suggested" in draw_chart(found)
    assert not (tmp_path / "out").exists() and not (tmp_path / "state").exists()
    assert find_rate(job, ignore, lowest=1e-4, highest=3.0, steps=40) == found
