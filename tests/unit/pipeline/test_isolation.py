"""A step in a process of its own: its output, its death, and how it is stopped."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import EspalierError, Interrupted
from espalier.core.events import Event
from espalier.pipeline.executors.local import _Child
from espalier.pipeline.graph import load_pipeline
from espalier.pipeline.result import PipelineResult
from espalier.pipeline.run import run_pipeline


def run(project: Any, **keywords: Any) -> PipelineResult:
    done: PipelineResult = project.run(isolated=True, **keywords)
    return done


def fail_with(project: Any, how: str) -> None:
    project.edit("toy.yaml", "step: toy_counts:count\n", f"step: toy_counts:count\n    with: {{fail: {how}}}\n")


def test_what_a_step_prints_is_in_its_runs_log(project: Any) -> None:
    result = run(project)
    log = project.store.runs.folder(result.nodes["count"].run) / "log.txt"
    assert log.read_text() == "counting, attempt 1\n"


def test_a_crash_names_the_line_and_where_the_traceback_is(project: Any) -> None:
    fail_with(project, "crash")
    with pytest.raises(EspalierError, match="RuntimeError: flaky") as caught:
        run(project)
    assert "toy_counts.py" in caught.value.where
    (failed,) = project.store.runs.list(status="failed", step="count@1")
    assert "Traceback" in (project.store.runs.folder(failed.id) / "log.txt").read_text()


def test_a_killed_step_says_by_which_signal(project: Any) -> None:
    fail_with(project, "die")
    with pytest.raises(EspalierError, match="signal 9"):
        run(project)


def test_what_a_step_said_before_it_ended_counts_however_late_it_is_read(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _Child._read

    def read_late(child: _Child, answers: int) -> None:
        child._process.wait()
        time.sleep(0.5)  # as on a busy machine
        read(child, answers)

    monkeypatch.setattr(_Child, "_read", read_late)
    assert run(project).nodes["count"].metrics["total"] == 5


def test_the_death_of_a_step_is_told_though_what_it_started_lives(project: Any) -> None:
    body = "    if os.fork() == 0:\n        os.read(0, 1)\n        os._exit(0)\n    os.kill(os.getpid(), 9)\n"
    project.edit("toy_steps.py", "    from cleaning import Cleaner\n", body)
    with pytest.raises(EspalierError, match="signal 9"):
        run(project)


def test_being_told_to_stop_ends_the_child_and_marks_the_runs(project: Any) -> None:
    project.edit("toy_steps.py", "    from cleaning import Cleaner\n", "    import time; time.sleep(600)\n")
    started = threading.Event()

    def emit(event: Event) -> None:
        if event.kind == "step.started":
            started.set()

    with pytest.raises(Interrupted) as caught:
        run(project, emit=emit, stop=started.is_set)
    assert "finished steps are kept" in caught.value.hint
    assert {one.status for one in project.store.runs.list()} == {"cancelled"}


def test_a_step_that_is_stopped_may_save_how_far_it_came(project: Any, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    body = f"""    import time
    from pathlib import Path
    from espalier.core.errors import Interrupted
    from espalier.core.events import Event
    try:
        while True:
            context.emit(Event("at.work", {{}}))
            time.sleep(0.05)
    except Interrupted:
        Path({str(saved)!r}).write_text("so far")
        raise
"""
    project.edit("toy_steps.py", "    from cleaning import Cleaner\n", body)
    at_work = threading.Event()

    def emit(event: Event) -> None:
        if event.kind == "at.work":
            at_work.set()

    with pytest.raises(Interrupted):
        run(project, emit=emit, stop=at_work.is_set)
    assert saved.read_text() == "so far"


def test_the_same_step_wanted_twice_at_once_is_done_once(project: Any) -> None:
    results: list[Any] = []
    graph = load_pipeline(project.pipeline)
    workers = [threading.Thread(target=lambda: results.append(run_pipeline(graph, project.store))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(result.nodes["read"].status for result in results) == ["hit", "hit", "ran"]
    assert len({result.output("count", "report") for result in results}) == 1
