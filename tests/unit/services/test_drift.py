"""data drift, as every face calls it; docs/drift.md is held to the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from espalier.core.errors import GateFailed, InvalidInput, NotFound
from espalier.core.events import Event
from espalier.core.types import Example, Message
from espalier.data.drift.spec import DriftSpec
from espalier.services.catalogue import publish_dataset
from espalier.services.context import Context, open_context
from espalier.services.drift import CompareDrift, drift
from espalier.services.schemas import make_schema
from espalier.store.examples import write_examples
from espalier.store.workspace import init_workspace

PAGE = (Path(__file__).parents[3] / "docs" / "drift.md").read_text("utf-8")
TOPICS = (("card", "lost", "blocked", "pin"), ("flight", "hotel", "luggage", "seat"))


def ask(topic: int, number: int) -> str:
    words = TOPICS[topic]
    return " ".join(["my", words[number % 4], "and", words[number // 4 % 4], *["please"] * (number % 5)])


def publish(context: Context, folder: Path, topic: int) -> str:
    rows = [
        Example(f"ex_{n}", [Message("user", ask(topic, n)), Message("assistant", "Done.")], split="train")
        for n in range(120)
    ]
    write_examples(folder / "data" / "train-00000.parquet", rows)
    (folder / "manifest.json").write_text('{"name": "support"}')
    artifact = context.store.artifacts.put("dataset", folder, meta={"name": "support"})
    return publish_dataset(context.store, artifact, "support", "ada").ref


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def context(tmp_path: Path, heard: list[Event]) -> Iterator[Context]:
    init_workspace(tmp_path)
    opened = replace(open_context(tmp_path, actor="ada"), emit=heard.append)
    for topic in (0, 1):
        publish(opened, tmp_path / f"made{topic}", topic)
    yield opened
    opened.close()


def write_prompts(path: Path, topic: int) -> str:
    path.write_text("".join(f"{json.dumps({'prompt': ask(topic, n)})}\n" for n in range(120)))
    return path.name


def test_a_version_that_drifted_is_told_as_an_event_with_its_alarms(context: Context, heard: list[Event]) -> None:
    report = drift(context, CompareDrift(reference="support@v1", current="support@v2"))
    assert (report.reference, report.current, report.verdict) == ("dataset:support@v1", "dataset:support@v2", "alarm")
    (event,) = [event for event in heard if event.kind == "data.drift"]
    assert event.data["verdict"] == "alarm" and event.data["alarms"] == len(report.alarms()) > 0
    assert event.data["tests"][0]["verdict"] == "alarm" and json.loads(event.to_json())["current"] == report.current


def test_prompts_like_the_training_set_are_ok(context: Context, tmp_path: Path, heard: list[Event]) -> None:
    name = write_prompts(tmp_path / "live.jsonl", topic=0)
    report = drift(context, CompareDrift(reference="support@v1", prompts=name, fail_on="warn"))
    assert report.verdict == "ok" and report.current == "live.jsonl"
    assert heard[-1].data == {
        "reference": "dataset:support@v1",
        "current": "live.jsonl",
        "verdict": "ok",
        "alarms": 0,
        "warnings": 0,
        "tests": [],
    }


def test_an_alarm_fails_only_where_that_is_asked_for(context: Context, tmp_path: Path, heard: list[Event]) -> None:
    name = write_prompts(tmp_path / "live.jsonl", topic=1)
    assert drift(context, CompareDrift(reference="support@v1", prompts=name)).verdict == "alarm"
    with pytest.raises(GateFailed, match=r"ALARM: live\.jsonl against dataset:support@v1"):
        drift(context, CompareDrift(reference="support@v1", prompts=name, fail_on="alarm"))
    assert [event.data["verdict"] for event in heard if event.kind == "data.drift"] == ["alarm", "alarm"]


def test_thresholds_come_from_a_file(context: Context, tmp_path: Path) -> None:
    (tmp_path / "drift.yaml").write_text("limits: {vocabulary: {off: true}, embedding: {off: true}}\n")
    wanted = CompareDrift(reference="support@v1", current="support@v2", thresholds="drift.yaml", slices=("split",))
    report = drift(context, wanted)
    assert report.verdict != "alarm" or {test.test.partition(":")[0] for test in report.alarms()} <= {"psi", "ks"}
    assert {test.slice for test in report.tests} == {"everything", "split=train"}
    (tmp_path / "drift.yaml").write_text("limits:\n  psi: {wran: 1}\n")
    with pytest.raises(InvalidInput) as error:
        drift(context, wanted)
    assert error.value.where.endswith("drift.yaml:2:9")


def test_tokens_are_counted_as_a_base_does(context: Context) -> None:
    wanted = CompareDrift(reference="support@v1", current="support@v1", base="builtin:seedling")
    assert {"psi:tokens", "ks:tokens"} <= {test.test for test in drift(context, wanted).tests}


def test_one_of_two_is_asked_for(context: Context) -> None:
    for wanted in ({}, {"current": "support", "prompts": "live.jsonl"}):
        with pytest.raises(InvalidInput, match="either current or prompts"):
            drift(context, CompareDrift.model_validate({"reference": "support", **wanted}))
    with pytest.raises(NotFound):
        drift(context, CompareDrift(reference="support", prompts="none.jsonl"))


def test_the_threshold_file_of_the_page_is_the_defaults() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    loaded = YAML(typ="safe").load(block)
    spec = DriftSpec.model_validate(loaded)
    assert set(loaded) == set(DriftSpec.model_fields) == set(make_schema("drift")["properties"])
    for kind in ("psi", "ks", "vocabulary", "embedding"):
        assert spec.find_limits(kind) == DriftSpec().find_limits(kind)
    assert spec.model_copy(update={"limits": {}, "slices": ()}) == DriftSpec()


def test_every_option_on_the_page_is_one_and_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = re.findall(r"--([a-z][\w-]+)", PAGE)
    assert {name.replace("-", "_") for name in options} - {"json"} <= set(CompareDrift.model_fields)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/drift.md", "exec"), {})
    assert capsys.readouterr().out.startswith("ALARM:")
