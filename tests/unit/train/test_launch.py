"""What is said of several processes, from what they leave behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from espalier.core.errors import EspalierError, InvalidInput, NotFound, Unavailable
from espalier.core.events import Event, ignore
from espalier.train.job import Job, TrainResult
from espalier.train.launch import _find_error, _follow, launch
from espalier.train.member import result_from_json, result_to_json, take_part
from espalier.train.plan import Cursor
from espalier.train.progress import Progress
from espalier.train.recipe import SftSpec


def _leave(folder: Path, errors: dict[int, EspalierError], ended: tuple[int, ...] = ()) -> Path:
    for rank, error in errors.items():
        (folder / f"error-{rank}.json").write_text(json.dumps(error.to_json()))
    for rank in ended:
        (folder / f"ended-{rank}").touch()
    (folder / "log.txt").write_text("first\nlast words\n")
    return folder


def test_the_cause_is_told_and_not_the_lost_connections_it_left(tmp_path: Path) -> None:
    errors = {0: Unavailable("lost process 2"), 1: InvalidInput("the loss is nan", hint="lower the rate")}
    found = _find_error(_leave(tmp_path, errors), workers=2)
    assert isinstance(found, InvalidInput)
    assert found.hint == "lower the rate"


def test_a_process_that_left_no_word_was_killed(tmp_path: Path) -> None:
    found = _find_error(_leave(tmp_path, {0: Unavailable("lost process 3")}, ended=(1,)), workers=3)
    assert isinstance(found, Unavailable)
    assert "process 3 of 3 was killed" in found.message


def test_processes_that_never_started_leave_the_last_line_of_their_log(tmp_path: Path) -> None:
    assert "last words" in _find_error(_leave(tmp_path, {}), workers=2).hint


def test_events_are_read_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    looks = _follow(path)
    assert next(looks) == []
    first, second = Event("train.step", {"step": 1}).to_json(), Event("train.step", {"step": 2}).to_json()
    path.write_text(first + "\n" + second[:9])
    assert [event.data["step"] for event in next(looks)] == [1]
    with path.open("a") as file:
        file.write(second[9:] + "\n")
    assert [event.data["step"] for event in next(looks)] == [2]
    assert next(looks) == []


def test_a_result_comes_back_from_another_process_as_it_was() -> None:
    progress = Progress(step=3, cursor=Cursor(1, 2, 3), loss_first=2.5, loss_last=0.1 + 0.2)
    result = TrainResult(progress, "digest", 10, 100, {"accuracy": 1 / 3})
    assert result_from_json(json.loads(json.dumps(result_to_json(result)))) == result


def test_what_a_process_raises_reaches_the_one_that_started_it(tmp_path: Path) -> None:
    spec = SftSpec(base=f"path:{tmp_path / 'nowhere'}")
    job = Job("sft", spec, (), tmp_path / "out", checkpoint_dir=tmp_path, cache_dir=tmp_path)
    (tmp_path / "job.json").write_text(job.to_json())
    (tmp_path / "log.txt").touch()
    with alone_in_a_group(tmp_path):
        assert take_part(tmp_path, rank=0) == NotFound.exit_code
    assert "nowhere" in _find_error(tmp_path, workers=1).message


@contextmanager
def alone_in_a_group(folder: Path) -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 1), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"where": {"shard": True}}, "over several processes"),
        ({"where": {"kind": "processes", "workers": 2, "shard": True}, "tune": "full"}, "an adapter learns on it"),
    ],
)
def test_a_base_is_spread_only_where_it_can_be(tmp_path: Path, recipe: dict[str, Any], said: str) -> None:
    job = Job("sft", SftSpec(**recipe), (), tmp_path / "out", checkpoint_dir=tmp_path, cache_dir=tmp_path)
    with pytest.raises(InvalidInput, match=said):
        launch(job, ignore)
