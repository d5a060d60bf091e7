"""A dataset version is exported to a bucket, and comes back from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from espalier.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from espalier.core.types import Example, Message
from espalier.data.readers.objects import list_objects
from espalier.data.readers.source import Selection
from espalier.services.catalogue import publish_dataset
from espalier.services.context import Context, open_context
from espalier.services.exchange import ExportDataset, export
from espalier.store.examples import write_examples
from espalier.store.workspace import init_workspace


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path)
    opened = open_context(tmp_path, actor="ada")
    folder = tmp_path / "made"
    turns = [Message("user", "q"), Message("assistant", "a")]
    write_examples(folder / "data" / "train-00000.parquet", [Example(f"ex_{n}", turns) for n in range(9)])
    (folder / "manifest.json").write_text('{"name": "support"}')
    artifact = opened.store.artifacts.put("dataset", folder, meta={"name": "support"})
    publish_dataset(opened.store, artifact, "support", "ada")
    yield opened
    opened.close()


def test_an_export_to_a_bucket_holds_the_bytes_of_one_to_a_folder(
    context: Context, s3_url: str, tmp_path: Path
) -> None:
    report = export(context, ExportDataset(ref="support", out=f"{s3_url}/out", format="alpaca"))
    assert report.folder == f"{s3_url}/out" and report.files == ("train.jsonl",) and report.examples == {"train": 9}
    export(context, ExportDataset(ref="support", out="out", format="alpaca"))
    selection = Selection(frozenset({"jsonl"}), cache=tmp_path / "cache")
    (found,) = list_objects(f"{s3_url}/out/", selection, 1 << 20).sources
    assert found.uri == "train.jsonl" and found.read_bytes() == (tmp_path / "out" / "train.jsonl").read_bytes()
    assert list(context.workspace.scratch_folder("exports").iterdir()) == []


def test_nothing_in_a_bucket_is_overwritten(context: Context, s3_url: str) -> None:
    request = ExportDataset(ref="support", out=f"{s3_url}/out")
    export(context, request)
    with pytest.raises(Conflict, match="not empty"):
        export(context, request)
    export(context, ExportDataset(ref="support", out=f"{s3_url}/ou"))  # another prefix, though it begins the same


def test_a_wrong_bucket_and_missing_credentials_are_named(
    context: Context, s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="names no bucket"):
        export(context, ExportDataset(ref="support", out="s3://"))
    with pytest.raises(NotFound, match="NoSuchBucket"):
        export(context, ExportDataset(ref="support", out="s3://espalier-nowhere/out"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(PermissionDenied, match="no AWS credentials"):
        export(context, ExportDataset(ref="support", out=s3_url))


def test_who_asks_over_the_network_does_not_choose_a_bucket(context: Context, s3_url: str) -> None:
    with pytest.raises(PermissionDenied, match="outside the workspace"):
        export(context.confine(), ExportDataset(ref="support", out=s3_url))
