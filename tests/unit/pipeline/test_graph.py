"""YAML and Python become the same graph; what is wrong with it is said with its place before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import Conflict, EspalierError, InvalidInput
from espalier.pipeline.builder import Builder
from espalier.pipeline.graph import Graph, bind_parameters, load_pipeline
from espalier.pipeline.lint import check, lint

SOUND = """\
name: toy
parameters:
  shortest: 1
steps:
  read:
    step: toy_steps:read
    with:
      shortest: ${parameters.shortest}
  count:
    step: toy_counts:count
    inputs:
      rows: read.rows
    when: parameters.shortest > 0
"""


def test_yaml_and_python_make_the_same_graph(project: Any) -> None:
    builder = Builder("toy", shortest=1)
    read = builder.add("read", "toy_steps:read", shortest=builder.parameter("shortest"))
    builder.add("count", "toy_counts:count", inputs={"rows": read["rows"]}, when="parameters.shortest > 0")
    assert builder.build().dump() == load_pipeline(project.write("p.yaml", SOUND)).dump()


def test_a_graph_survives_its_json(project: Any) -> None:
    graph = load_pipeline(project.write("p.yaml", SOUND))
    assert Graph.model_validate(graph.dump()).dump() == graph.dump()


def test_a_sound_pipeline_has_no_problems(project: Any) -> None:
    assert lint(load_pipeline(project.write("p.yaml", SOUND))) == []


READ, SHORTEST, WHEN = "toy_steps:read", "${parameters.shortest}", "parameters.shortest > 0"

# (what is written, what instead, the place, the message, the hint)
FAULTS = {
    "a key nobody knows": ("    inputs:", "    inpts: {}\n    inputs:", "11:5", "unknown key", "`inputs`"),
    "a misspelt `with`": ("    with:", "    wiht:", "7:5", "unknown key", "`with`"),
    "a module that is not there": (READ, "toy_stps:read", "6:5", "no module toy_stps", "toy_stps.py"),
    "a step that is not there": (READ, "toy_steps:rad", "6:5", "has no 'rad'", "decorated"),
    "a plug-in that is not there": (READ, "train.sftt", "6:5", "no step called 'train.sftt'", "`train.sft`"),
    "a function that is no step": (READ, "toy_steps:named_files", "6:5", "not a step", "@step"),
    "a key the spec does not know": ("      shortest:", "      shrtest:", "8:7", "unknown key", "`shortest`"),
    "a value of the wrong type": (SHORTEST, "many", "8:7", "shortest", ""),
    "a parameter nobody declared": (SHORTEST, "${parameters.shrtest}", "8:7", "'shrtest'", "`shortest`"),
    "a reference of another kind": (SHORTEST, "${env.HOME}", "8:7", "${env.HOME}", "parameters.NAME"),
    "an input the step does not take": ("      rows:", "      row:", "12:7", "no input 'row'", "`rows`"),
    "an input that is missing": (
        "    inputs:\n      rows: read.rows\n",
        "",
        "9:3",
        "input 'rows'",
        "rows: step.output",
    ),
    "an output the step does not make": ("read.rows", "read.row", "12:7", "no output 'row'", "`rows`"),
    "a source that is no step": ("read.rows", "reed.rows", "12:7", "'reed', which is no step", "`read`"),
    "a step that waits for itself": ("read.rows", "count.report", "9:3", "wait for each other", ""),
    "a condition that cannot be read": (WHEN, "shortest >", "13:5", "cannot read", ""),
    "a condition that calls": (WHEN, "exit(1)", "13:5", "cannot read", ""),
    "a condition on an unknown parameter": (WHEN, "parameters.short > 0", "13:5", "'short'", "`shortest`"),
    "a condition on an unknown step": (WHEN, "steps.reed.rows > 0", "13:5", "'reed'", "`read`"),
    "a step name that is no name": ("  count:", "  Count-It:", "4:1", "no step name", ""),
    "a negative retry": ("    when:", "    retries: -1\n    when:", "13:5", "must be at least 0 (got -1)", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place_and_what_to_do(project: Any, fault: str) -> None:
    old, new, place, message, hint = FAULTS[fault]
    assert old in SOUND
    path = project.write("p.yaml", SOUND.replace(old, new, 1))
    with pytest.raises(EspalierError) as caught:
        check(load_pipeline(path))
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.where.endswith(f"p.yaml:{place}")


def test_kinds_that_do_not_fit_are_refused(project: Any) -> None:
    text = SOUND + "  again:\n    step: toy_counts:count\n    inputs: {rows: count.report}\n"
    with pytest.raises(InvalidInput, match=r"again\.rows takes a rows, count\.report is a report") as caught:
        check(load_pipeline(project.write("p.yaml", text)))
    assert caught.value.where.endswith("p.yaml:16:14")


def test_a_cycle_is_drawn(project: Any) -> None:
    text = SOUND.replace("    step: toy_steps:read", "    step: toy_steps:read\n    needs: [count]")
    with pytest.raises(InvalidInput) as caught:
        load_pipeline(project.write("p.yaml", text)).order()
    assert "read -> count -> read" in caught.value.message or "count -> read -> count" in caught.value.message


def test_all_faults_are_listed_at_once(project: Any) -> None:
    text = SOUND.replace("toy_steps:read", "nothing:read").replace("      rows:", "      row:")
    with pytest.raises(InvalidInput) as caught:
        check(load_pipeline(project.write("p.yaml", text)))
    assert "nothing" in caught.value.message
    assert "no input 'row'" in caught.value.message


def test_an_unused_parameter_is_a_warning_and_no_error(project: Any) -> None:
    path = project.write("p.yaml", SOUND.replace("  shortest: 1", "  shortest: 1\n  unused: 2"))
    (problem,) = lint(load_pipeline(path))
    assert (problem.level, problem.message) == ("warning", "parameter 'unused' is used nowhere")
    assert problem.where.endswith("p.yaml:4:3")
    check(load_pipeline(path))


@pytest.mark.parametrize(
    ("default", "given", "bound"),
    [
        (1, 2, 2),
        (1, "2", 2),
        (0.5, 1, 1.0),
        (0.5, "1e-4", 1e-4),
        (True, "no", False),
        ("a", "2", "2"),
        ([1], "[2, 3]", [2, 3]),
    ],
)
def test_a_parameter_keeps_the_type_of_its_default(default: Any, given: Any, bound: Any) -> None:
    graph = Graph.model_validate({"name": "g", "parameters": {"x": default}, "steps": {"a": {"step": "s"}}})
    value = bind_parameters(graph, {"x": given})["x"]
    assert (value, type(value)) == (bound, type(bound))


@pytest.mark.parametrize(("default", "given"), [(1, "two"), (1, 1.5), (1, True), (True, 1), ("a", 1), ([1], "x")])
def test_a_parameter_of_another_type_is_refused(default: Any, given: Any) -> None:
    graph = Graph.model_validate({"name": "g", "parameters": {"x": default}, "steps": {"a": {"step": "s"}}})
    with pytest.raises(InvalidInput, match="parameter x"):
        bind_parameters(graph, {"x": given})


def test_steps_come_after_all_they_depend_on() -> None:
    builder = Builder("g")
    builder.add("last", "s", inputs={"a": "middle.out"}, when="steps.other.loss < 1")
    builder.add("middle", "s", inputs={"a": "first.out"})
    builder.add("other", "s")
    first = builder.add("first", "s")
    builder.add("alone", "s", needs=[first])
    order = builder.build().order()
    for before, after in [("first", "middle"), ("middle", "last"), ("other", "last"), ("first", "alone")]:
        assert order.index(before) < order.index(after)


def test_a_builder_refuses_a_name_twice() -> None:
    builder = Builder("g")
    builder.add("a", "s")
    with pytest.raises(Conflict):
        builder.add("a", "s")


def test_a_graph_without_a_file_is_rooted_where_it_is_told(tmp_path: Path) -> None:
    graph = Graph.model_validate({"name": "g", "steps": {"a": {"step": "s"}}})
    rooted = graph.rooted_in(tmp_path)
    assert rooted.folder == tmp_path
    assert rooted.where("steps", "a") == graph.where("steps", "a") == "steps.a"
