"""data inspect, export and check, as every face calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import GateFailed, NotFound
from espalier.core.operations import find_operation
from espalier.core.types import Example, Message
from espalier.services.catalogue import publish_dataset
from espalier.services.context import Context, open_context
from espalier.services.exchange import CheckDataset, ExportDataset, InspectSource, check, export, inspect
from espalier.store.examples import write_examples
from espalier.store.workspace import init_workspace

TURNS = [Message("user", "q"), Message("assistant", "a")]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path)
    opened = open_context(tmp_path, actor="ada")
    yield opened
    opened.close()


@pytest.fixture
def published(context: Context, tmp_path: Path) -> str:
    folder = tmp_path / "made"
    write_examples(folder / "data" / "train-00000.parquet", [Example(f"ex_{n}", TURNS) for n in range(9)])
    (folder / "manifest.json").write_text('{"name": "support"}')
    artifact = context.store.artifacts.put("dataset", folder, meta={"name": "support"})
    return publish_dataset(context.store, artifact, "support", "ada").ref


def test_a_version_is_exported_and_the_files_are_checked(context: Context, published: str, tmp_path: Path) -> None:
    report = export(context, ExportDataset(ref=published, out="out", format="bedrock-conversation"))
    assert report.examples == {"train": 9} and "train.jsonl" in report.to_text()
    of_files = check(context, CheckDataset(source="out", for_="bedrock:nova"))
    of_version = check(context, CheckDataset.model_validate({"source": "support", "for": "bedrock:nova"}))
    assert of_files.accepted and of_version.accepted and of_files.records == of_version.records == {"train": 9}
    found = inspect(context, InspectSource(path="out/train.jsonl"))
    assert found.detection.format == "bedrock-conversation"


def test_strict_is_for_scripts(context: Context, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": "q", "completion": "a"}) + "\n")
    lenient = check(context, CheckDataset(source="train.jsonl", for_="bedrock:nova"))
    assert not lenient.accepted
    with pytest.raises(GateFailed, match="would be refused"):
        check(context, CheckDataset(source="train.jsonl", for_="bedrock:nova", strict=True))


def test_what_is_neither_file_nor_dataset_is_not_found(context: Context, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no dataset 'nowhere'"):
        check(context, CheckDataset(source="nowhere", for_="bedrock:nova"))


@pytest.mark.parametrize("name", ["datasets.inspect", "datasets.export", "datasets.check"])
def test_each_is_an_operation_with_types_every_face_can_read(name: str) -> None:
    found = find_operation(name)
    assert found.response.model_json_schema()["properties"] and found.request.model_json_schema()["properties"]
