"""No stale result, ever: whatever a result depends on, changing it runs the step again and the reason says so.

The scenarios are those in which pipelines elsewhere served old results: a change in a module the step's module imports,
in a table at module level, in a method, besides the obvious ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from espalier.core.events import Event
from espalier.pipeline.result import PipelineResult


def run(project: Any, **parameters: Any) -> PipelineResult:
    done: PipelineResult = project.run(parameters=parameters)
    return done


def reasons(result: PipelineResult) -> dict[str, str]:
    return {name: node.reason for name, node in result.nodes.items()}


def test_the_first_run_does_everything_and_the_second_nothing(project: Any) -> None:
    first = run(project)
    assert reasons(first) == {"read": "miss: never run", "count": "miss: never run"}
    second = run(project)
    assert [node.status for node in second.nodes.values()] == ["hit", "hit"]
    assert second.nodes["read"].reason == f"hit: same inputs as {first.nodes['read'].run}"
    assert second.nodes["count"].outputs == first.nodes["count"].outputs
    assert second.nodes["read"].metrics == {"rows": 2.0}


CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "a method of a class in a module the step imports inside its function": (
        lambda project: project.edit("cleaning.py", "text.lower()", "text.upper()"),
        "miss: code changed: cleaning",
    ),
    "a table at module level": (
        lambda project: project.edit("cleaning.py", '"a": True', '"a": True, "red": True'),
        "miss: code changed: cleaning",
    ),
    "the step's own body": (
        lambda project: project.edit("toy_steps.py", "len(row) >= spec", "len(row) > spec"),
        "miss: code changed: toy_steps",
    ),
    "the content of an input file, its size the same": (
        lambda project: project.write("texts/one.txt", "The end of the lane"),
        "miss: file changed: texts/one.txt",
    ),
    "a new input file": (
        lambda project: project.write("texts/three.txt", "Green"),
        "miss: new file: texts/three.txt",
    ),
    "an input file that is gone": (
        lambda project: (project.folder / "texts" / "two.txt").unlink(),
        "miss: file gone: texts/two.txt",
    ),
    "an environment variable the step reads": (
        lambda project: os.environ.__setitem__("TOY_SUFFIX", "!"),
        "miss: environment variable TOY_SUFFIX changed",
    ),
    "the step's version": (
        lambda project: project.edit("toy_steps.py", '"read", version=1', '"read", version=2'),
        "miss: step read@1 -> read@2; code changed: toy_steps",
    ),
    "the pipeline's seed": (
        lambda project: project.edit("toy.yaml", "name: toy", "name: toy\nseed: 7"),
        "miss: seed 0 -> 7",
    ),
    "a constant in the recipe": (
        lambda project: project.edit("toy.yaml", '"${parameters.shortest}"', "5"),
        "miss: shortest changed 1 -> 5",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_runs_the_step_again_and_says_why(project: Any, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_SUFFIX", "")
    before = run(project)
    act, reason = CHANGES[change]
    act(project)
    after = run(project)
    assert after.nodes["read"].status == "ran"
    assert after.nodes["read"].reason == reason
    if after.nodes["read"].outputs != before.nodes["read"].outputs:
        assert "inputs.rows changed" in after.nodes["count"].reason


def test_a_parameter_runs_again_and_going_back_is_a_hit(project: Any) -> None:
    run(project)
    changed = run(project, shortest=9)
    assert changed.nodes["read"].reason == "miss: shortest changed 1 -> 9"
    assert "inputs.rows changed" in changed.nodes["count"].reason
    assert run(project, shortest=1).hits == 2
    assert run(project, shortest="9").hits == 2
    third = run(project, shortest=20)
    assert third.nodes["read"].reason == "miss: shortest changed 9 -> 20"  # compared with what was used last


@pytest.mark.parametrize(
    "change",
    [
        lambda project: project.edit("cleaning.py", "class Cleaner:", "# a comment\n\n\nclass Cleaner:"),
        lambda project: os.utime(project.folder / "texts" / "one.txt"),
        lambda project: project.write("notes.txt", "not an input"),
        lambda project: project.write("unused.py", "X = 1"),
        lambda project: project.edit("toy.yaml", "name: toy", "description: words\nname: toy"),
    ],
    ids=["a comment", "a touched file", "a file no step names", "a module no step imports", "a description"],
)
def test_what_a_result_does_not_depend_on_does_not_run_it_again(project: Any, change: Callable[[Any], None]) -> None:
    run(project)
    change(project)
    assert run(project).hits == 2


def test_the_same_rows_from_other_code_stop_the_change_there(project: Any) -> None:
    run(project)
    project.edit("cleaning.py", "text.lower().split()", "str(text).lower().split()")
    after = run(project)
    assert after.nodes["read"].reason == "miss: code changed: cleaning"
    assert after.nodes["count"].status == "hit"


def test_a_secret_in_the_environment_is_not_written_down(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_SUFFIX", "hunter2-secret")
    project.edit("toy_steps.py", 'os.environ.get("TOY_SUFFIX", "")', '""')
    run(project)
    project.store.close()
    kept = project.store.workspace.folder
    assert not [path for path in kept.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_a_lock_file_is_part_of_every_key(project: Any) -> None:
    project.write("pins.txt", "torch==1")
    project.edit("toy.yaml", "name: toy", "name: toy\nlock: pins.txt")
    run(project)
    assert run(project).hits == 2
    project.write("pins.txt", "torch==2")
    assert reasons(run(project)) == {"read": "miss: lock file changed", "count": "miss: lock file changed"}


def test_code_edited_while_a_step_runs_is_not_cached_under_the_old_key(project: Any) -> None:
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if event.kind == "read.done":
            project.edit("cleaning.py", "text.lower()", "text.upper()")

    project.run(emit=emit)
    assert any("changed while it ran" in event.data.get("message", "") for event in events)
    assert run(project).nodes["read"].reason == "miss: never run"
