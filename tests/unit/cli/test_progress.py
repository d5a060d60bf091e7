"""What a person sees of the event stream."""

from __future__ import annotations

import pytest

from espalier.cli.progress import Progress, bar, curve, format_s
from espalier.core.events import Event


def test_a_hit_says_why_it_is_one() -> None:
    progress = Progress()
    (line,) = progress.take(
        Event("step.finished", {"name": "dataset", "hit": True, "reason": "hit: same inputs as run_1"})
    )
    assert line.split() == ["=", "dataset", "cached", "hit:", "same", "inputs", "as", "run_1"]


def test_a_step_that_ran_says_how_long() -> None:
    (line,) = Progress().take(
        Event("step.finished", {"name": "train", "hit": False, "wall_ms": 3210, "reason": "never run"})
    )
    assert line.split() == ["+", "train", "done", "3.2", "s", "never", "run"]


def test_a_step_that_failed_is_not_called_done() -> None:
    (line,) = Progress().take(Event("step.failed", {"name": "train", "reason": "never run", "error": {}}))
    assert line.split() == ["x", "train", "failed"]


def test_training_shows_step_loss_curve_speed_and_time_left() -> None:
    progress = Progress()
    for step, loss in enumerate((4.0, 2.0, 1.0), 1):
        data = {"step": step, "steps": 4, "loss": loss, "tokens_per_s": 1234.5, "eta_s": 61.0}
        assert progress.take(Event("train.step", data)) == []
    assert "step 3/4" in progress.status and "loss 1.000" in progress.status and "█▃▁" in progress.status
    assert "1,234 tokens/s" in progress.status and "61 s left" in progress.status
    assert progress.share == 0.75
    (line,) = progress.take(Event("train.done", {}))
    assert line.split() == ["loss", "4.000", "█▃▁", "1.000"]


def test_an_unknown_kind_is_silent() -> None:
    progress = Progress()
    assert progress.take(Event("some.thing", {"x": 1})) == []
    assert progress.status == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4 s"), (12.4, "12 s"), (185, "3:05 min"), (7800, "2:10 h")])
def test_a_duration_reads_naturally(seconds: float, text: str) -> None:
    assert format_s(seconds) == text


def test_a_curve_is_averaged_down_to_its_width() -> None:
    assert curve([1.0]) == ""
    assert curve([5.0, 5.0]) == "▁▁"
    falling = curve([float(100 - i) for i in range(1000)], points=8)
    assert falling == "█▇▆▅▄▃▂▁"


def test_a_bar_stays_within_its_width() -> None:
    assert [len(bar(share, 10)) for share in (-1, 0, 0.5, 1, 2)] == [10] * 5
    assert bar(0.5, 4) == "━━╌╌"


def test_a_built_dataset_is_summed_up_with_what_was_left_out() -> None:
    told = {
        "examples": 3,
        "splits": {"train": 2, "validation": 0, "test": 1},
        "documents_read": 9,
        "documents_kept": 3,
        "drops": {"near duplicate": 6},
        "redactions": {"EMAIL": 4},
        "files_skipped": {"same bytes as another": 5, "unreadable": 7},
        "unreadable": [f"{n}.pdf: torn" for n in range(7)],
    }
    lines = Progress().take(Event("data.built", told))
    assert lines[:5] == [
        "    3 examples from 3 of 9 documents: 2 train, 1 test",
        "    left out: 6 near duplicate",
        "    files not read: 5 same bytes as another, 7 unreadable",
        "    redacted: 4 EMAIL",
        "    unreadable: 0.pdf: torn",
    ]
    assert lines[-1] == "    unreadable: 2 more, in `espalier data exclusions`" and len(lines) == 10
    assert Progress().take(Event("data.built", {"examples": 1})) == ["    1 examples from 0 of 0 documents: "]


def test_a_new_version_is_told_by_name() -> None:
    (line,) = Progress().take(Event("data.version", {"ref": "dataset:support@v2", "digest": "ab"}))
    assert line == "    dataset:support@v2: `espalier data show support@v2` tells what is in it"


def test_generation_shows_what_was_asked_what_it_cost_and_what_was_left_out() -> None:
    progress = Progress()
    data = {
        "what": "passages",
        "done": 3,
        "total": 12,
        "eta_ms": 61_000,
        "prompt_tokens": 1200,
        "completion_tokens": 34,
    }
    assert progress.take(Event("generate.progress", {**data, "cost": "$0.012"})) == []
    assert progress.status.split("  ") == [
        "", "", "passages 3/12", "━━━━╌╌╌╌╌╌╌╌╌╌╌╌", "1,234 tokens", "$0.012", "61 s left",
    ]  # fmt: skip
    told = progress.take(Event("generate.finished", {"rows": 12, "kept": 9, "drops": {"not JSON": 3}}))
    assert [line.strip() for line in told] == ["9 of 12 rows kept", "left out: 3 not JSON"]


def test_an_audit_says_what_is_learnt_dataset_by_dataset_and_every_warning() -> None:
    parts = [{"name": "", "tokens": 800, "share": 1.0}, {"name": "general", "tokens": 200, "share": 0.25}]
    told = {"supervised_share": 0.4, "tokens": 1000, "examples": 12, "dropped": 1, "truncated": 0, "parts": parts}
    lines = Progress().take(Event("train.audit", {**told, "warnings": ["1 dropped: every answer is empty (x)"]}))
    assert lines == [
        "    learning from 40% of 1,000 tokens in 12 examples, 1 dropped",
        "      main: 800 tokens, share 1",
        "      general: 200 tokens, share 0.25",
        "    ! 1 dropped: every answer is empty (x)",
    ]


def test_what_a_method_measures_beside_its_loss_is_shown() -> None:
    progress = Progress()
    measured = {"accuracy": 0.75, "margin": 0.5, "reward_chosen": 0.1}
    progress.take(Event("train.step", {"step": 1, "steps": 4, "loss": 0.69, "tokens_per_s": 10.0, **measured}))
    assert "accuracy 0.750  margin 0.500" in progress.status and "reward_chosen" not in progress.status
    told = progress.take(Event("train.eval", {"step": 1, "validation_loss": 0.6, **measured}))
    assert told == ["    step 1: validation loss 0.600  accuracy 0.750  margin 0.500"]


def test_a_batch_says_how_far_it_is_and_what_came_of_it() -> None:
    progress = Progress()
    progress.take(Event("batch.progress", {"what": "validating", "done": 0, "total": 0}))
    assert progress.status.strip() == "validating ..."
    told = {"what": "in progress", "done": 5, "total": 10, "prompt_tokens": 40, "completion_tokens": 20, "eta_ms": 2000}
    assert progress.take(Event("batch.progress", told)) == []
    assert "in progress 5/10" in progress.status and "2.0 s left" in progress.status
    ended = {"status": "completed", "completed": 9, "failed": 1, "total": 10, "output": "out", "errors": "bad"}
    assert progress.take(Event("batch.finished", ended)) == [
        "    completed: 9 of 10 lines answered, 1 failed: bad",
        "    answers: out",
    ]
    assert progress.status == ""
    cut = {"status": "cancelled", "completed": 3, "failed": 1, "total": 10, "output": "out", "errors": "bad"}
    assert progress.take(Event("batch.finished", cut))[0].endswith(", 1 failed: bad, 6 not asked: bad")
