"""Running a pipeline: what is kept, what is refused, what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import GateFailed, InvalidInput, NotFound, StorageFull
from espalier.core.events import Event
from espalier.core.types import Run
from espalier.pipeline.recovery import bury_dead_runs
from espalier.pipeline.result import PipelineResult
from espalier.store.artifacts import Artifacts


def run(project: Any, **keywords: Any) -> PipelineResult:
    done: PipelineResult = project.run(**keywords)
    return done


def fail_with(project: Any, how: str) -> None:
    project.edit("toy.yaml", "step: toy_counts:count\n", f"step: toy_counts:count\n    with: {{fail: {how}}}\n")


def test_everything_about_a_run_is_on_record(project: Any) -> None:
    result = run(project, actor="ann")
    whole = project.store.runs.get(result.run)
    assert (whole.step, whole.name, whole.status, whole.actor) == ("pipeline", "toy", "succeeded", "ann")
    assert whole.spec["graph"]["steps"]["read"]["step"] == "toy_steps:read"
    step = project.store.runs.get(result.nodes["read"].run)
    assert (step.step, step.parent, step.status, step.metrics) == ("read@1", result.run, "succeeded", {"rows": 2.0})
    assert step.outputs == result.nodes["read"].outputs
    assert step.cpu_s > 0
    assert step.environment is not None
    assert step.environment.cores > 0
    artifact = project.store.artifacts.get(step.outputs["rows"])
    assert (artifact.kind, artifact.made_by, artifact.meta) == ("rows", step.id, {"rows": "2"})


def test_lineage_leads_from_a_result_to_what_it_was_made_from(project: Any) -> None:
    result = run(project)
    edges = project.store.artifacts.parents(result.output("count", "report"))
    assert [(edge.parent, edge.role) for edge in edges] == [(result.output("read", "rows"), "rows")]


def test_a_hit_is_a_run_too_and_names_the_one_it_repeats(project: Any) -> None:
    first, second = run(project), run(project)
    repeated = project.store.runs.get(second.nodes["read"].run)
    assert repeated.cache_hit_of == first.nodes["read"].run
    assert repeated.outputs == first.nodes["read"].outputs


def test_events_reach_the_caller_the_pipelines_log_and_the_steps_own(project: Any) -> None:
    heard: list[Event] = []
    result = run(project, emit=heard.append)
    kinds = [
        "run.started",
        "step.started",
        "read.done",
        "step.finished",
        "step.started",
        "step.finished",
        "run.finished",
    ]
    assert [event.kind for event in heard] == kinds
    assert list(project.store.runs.events(result.run)) == heard
    own = list(project.store.runs.events(result.nodes["read"].run))
    assert [(event.kind, event.data) for event in own] == [("read.done", {"rows": 2})]
    marked = next(event for event in heard if event.kind == "read.done")
    assert marked.data == {"rows": 2, "node": "read", "run": result.nodes["read"].run}
    finished = next(event for event in heard if event.kind == "step.finished")
    assert finished.data["reason"] == "miss: never run"
    assert not finished.data["hit"]


def test_a_failing_step_keeps_the_finished_ones_and_its_own_error(project: Any) -> None:
    fail_with(project, "gate")
    with pytest.raises(GateFailed, match="step count: too few letters") as caught:
        run(project)
    assert caught.value.hint == "write more"
    failed = project.store.runs.list(status="failed")
    assert {one.name for one in failed} == {"toy", "count"}
    assert failed[0].error is not None
    assert failed[0].error["code"] == "gate_failed"
    project.edit("toy.yaml", "{fail: gate}", "{}")
    after = run(project)
    assert after.nodes["read"].status == "hit"
    assert after.nodes["count"].status == "ran"


def test_a_crash_is_tried_again_as_often_as_allowed(project: Any) -> None:
    fail_with(project, '"crash once"')
    project.edit("toy.yaml", "inputs: {rows: read.rows}", "inputs: {rows: read.rows}\n    retries: 2")
    heard: list[Event] = []
    result = run(project, emit=heard.append)
    assert result.nodes["count"].metrics["tried"] == 2
    assert [event.data["attempt"] for event in heard if event.kind == "step.retry"] == [1]


def test_an_error_a_user_must_mend_is_not_tried_again(project: Any) -> None:
    fail_with(project, "gate")
    project.edit("toy.yaml", "inputs: {rows: read.rows}", "inputs: {rows: read.rows}\n    retries: 5")
    heard: list[Event] = []
    with pytest.raises(GateFailed):
        run(project, emit=heard.append)
    assert not [event for event in heard if event.kind == "step.retry"]


def test_a_step_that_leaves_its_output_empty_is_an_error(project: Any) -> None:
    fail_with(project, "nothing")
    with pytest.raises(InvalidInput, match="wrote nothing to its output 'report'"):
        run(project)


def test_a_damaged_result_is_found_made_again_and_healed(project: Any) -> None:
    first = run(project)
    folder = project.store.artifacts.materialise(first.output("read", "rows"))
    damaged = folder / "rows.json"
    damaged.chmod(0o644)
    damaged.write_text("[]")
    second = run(project)
    assert second.nodes["read"].status == "ran"
    assert "is damaged" in second.nodes["read"].reason
    assert second.output("read", "rows") == first.output("read", "rows")
    assert second.nodes["count"].status == "hit"
    assert json.loads((project.store.artifacts.materialise(first.output("read", "rows")) / "rows.json").read_text())
    assert run(project).hits == 2


def test_a_side_effect_is_done_every_time(project: Any) -> None:
    project.edit(
        "toy.yaml",
        "inputs: {rows: read.rows}",
        "inputs: {rows: read.rows}\n  publish:\n    step: toy_counts:publish\n    inputs: {report: count.report}",
    )
    run(project, actor="ann")
    second = run(project, actor="ann")
    assert second.hits == 2
    assert second.nodes["publish"].reason.startswith("side effect")
    assert (project.folder / "published").read_text() == '{"total": 5, "seed": 0}ann\n' * 2


def test_a_condition_skips_a_step_and_those_that_need_it(project: Any) -> None:
    project.edit(
        "toy.yaml",
        "inputs: {rows: read.rows}",
        "inputs: {rows: read.rows}\n    when: steps.read.rows > 5\n"
        "  publish:\n    step: toy_counts:publish\n    inputs: {report: count.report}",
    )
    result = run(project)
    assert result.nodes["count"].reason == "not so: steps.read.rows > 5"
    assert result.nodes["publish"].reason == "its input report (count.report) was not made"
    assert not (project.folder / "published").exists()
    for number in range(4):
        project.write(f"texts/{number}.txt", "x")
    assert run(project).nodes["count"].status == "ran"


def test_an_artifact_can_be_given_by_its_digest_and_by_a_reference(project: Any) -> None:
    rows = run(project).output("read", "rows")
    alone = "name: other\nsteps:\n  count:\n    step: toy_counts:count\n    inputs: {rows: 'GIVEN'}\n"
    project.write("toy.yaml", alone.replace("GIVEN", f"sha256:{rows}"))
    assert run(project).nodes["count"].status == "hit"
    project.write("toy.yaml", alone.replace("GIVEN", "dataset:x@v1"))
    with pytest.raises(InvalidInput, match="dataset:x@v1"):
        run(project)
    asked: list[str] = []
    result = run(project, resolve=lambda text: asked.append(text) or rows)
    assert asked == ["dataset:x@v1"]
    assert result.nodes["count"].status == "hit"


def test_a_file_the_spec_names_that_is_not_there_is_an_error_with_its_place(project: Any) -> None:
    project.edit("toy.yaml", 'with: {shortest: "${parameters.shortest}"}', "with: {source: nowhere}")
    with pytest.raises(NotFound, match="nowhere") as caught:
        run(project)
    assert caught.value.where.endswith("toy.yaml:7:5")


def test_a_pipeline_inside_a_callers_run_leaves_its_log_and_end_to_the_caller(project: Any) -> None:
    project.store.runs.create(Run(id="run_job", step="pipelines.run", status="running"))
    result = run(project, within="run_job")
    assert result.run == "run_job"
    assert project.store.runs.get("run_job").status == "running"
    assert list(project.store.runs.events("run_job")) == []
    assert {one.name for one in project.store.runs.list(parent="run_job")} == {"read", "count"}


def test_a_run_whose_process_lives_is_not_buried(project: Any) -> None:
    seen: list[list[str]] = []

    def emit(event: Event) -> None:
        if event.kind == "step.started":
            seen.append(bury_dead_runs(project.store))

    result = run(project, emit=emit)
    assert seen == [[], []]
    assert project.store.runs.get(result.run).status == "succeeded"


def test_nothing_is_left_in_staging_and_scratch(project: Any) -> None:
    run(project)
    folder: Path = project.store.workspace.folder
    assert [path for name in ("staging", "scratch") for path in (folder / name).iterdir()] == []


def test_a_full_disk_while_results_are_stored_keeps_the_cache_clean(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise StorageFull("no space left", hint="free some space")

    with monkeypatch.context() as patch:
        patch.setattr(Artifacts, "stage", refuse)
        with pytest.raises(StorageFull):
            run(project)
    assert {one.status for one in project.store.runs.list()} == {"failed"}
    assert [node.reason for node in run(project).nodes.values()] == ["miss: never run", "miss: never run"]


def test_steps_of_a_dead_process_are_buried_whatever_became_of_the_run_they_belong_to(project: Any) -> None:
    runs = project.store.runs
    runs.create(Run(id="run_job", step="pipelines.run", status="running"))
    runs.create(Run(id="run_step", step="read@1", parent="run_job", status="running"))
    (runs.folder("run_job")).mkdir(parents=True)
    (runs.folder("run_job") / "lock").touch()  # as kill -9 leaves it: there, and held by nobody
    assert bury_dead_runs(project.store) == ["run_step"]
    assert (runs.get("run_step").status, runs.get("run_job").status) == ("failed", "running")
    runs.create(Run(id="run_other", step="read@1", parent="run_elsewhere", status="running"))
    assert bury_dead_runs(project.store) == []
