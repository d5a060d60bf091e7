"""Artifacts as folders: checked each time, healed where the bytes are still somewhere, refused where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound
from espalier.core.types import Artifact
from espalier.store.blobs import LocalBlobs
from espalier.store.store import Store


@pytest.fixture
def artifact(store: Store, tmp_path: Path) -> Artifact:
    folder = tmp_path / "made"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "rows.txt").write_text("one\ntwo\n")
    (folder / "manifest.json").write_text("{}")
    return store.artifacts.put("dataset", folder, {"rows": "2"}, "run_1")


def overwrite(path: Path, text: str) -> None:
    path.chmod(0o644)
    path.write_text(text)


def test_a_folder_comes_back_with_its_names_and_bytes_read_only(store: Store, artifact: Artifact) -> None:
    folder = store.artifacts.materialise(artifact.digest)
    assert (folder / "data" / "rows.txt").read_text() == "one\ntwo\n"
    assert [file.path for file in artifact.files] == ["data/rows.txt", "manifest.json"]
    assert not any(path.stat().st_mode & 0o222 for path in folder.rglob("*") if path.is_file())


def test_the_digest_depends_on_kind_names_bytes_and_meta_alone(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    again = tmp_path / "elsewhere"
    (again / "data").mkdir(parents=True)
    (again / "manifest.json").write_text("{}")
    (again / "data" / "rows.txt").write_text("one\ntwo\n")
    assert store.artifacts.put("dataset", again, {"rows": "2"}, "run_2").digest == artifact.digest
    (again / "manifest.json").rename(again / "renamed.json")
    assert store.artifacts.put("dataset", again, {"rows": "2"}).digest != artifact.digest


def test_a_file_that_is_gone_from_the_folder_is_laid_out_again(store: Store, artifact: Artifact) -> None:
    folder = store.artifacts.materialise(artifact.digest)
    (folder / "manifest.json").unlink()
    assert (store.artifacts.materialise(artifact.digest) / "manifest.json").read_text() == "{}"


def test_a_changed_byte_in_the_store_is_found_when_the_artifact_is_asked_for(store: Store, artifact: Artifact) -> None:
    folder = store.artifacts.materialise(artifact.digest)
    overwrite(folder / "data" / "rows.txt", "one\ntwO\n")  # a hard link: the blob changes with it
    with pytest.raises(DigestMismatch):
        store.artifacts.materialise(artifact.digest)
    assert "other bytes" in store.artifacts.check(artifact.digest)


def test_making_a_damaged_artifact_again_repairs_it(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    overwrite(store.artifacts.materialise(artifact.digest) / "data" / "rows.txt", "other")
    assert store.artifacts.put("dataset", tmp_path / "made", {"rows": "2"}).digest == artifact.digest
    assert (store.artifacts.materialise(artifact.digest) / "data" / "rows.txt").read_text() == "one\ntwo\n"
    assert store.artifacts.check(artifact.digest) == ""


def test_a_missing_blob_is_named(store: Store, artifact: Artifact) -> None:
    assert isinstance(store.blobs, LocalBlobs)
    store.blobs.path(artifact.files[0].sha256).unlink()
    with pytest.raises(NotFound, match="no blob"):
        store.artifacts.materialise(artifact.digest)


def test_a_copy_serves_where_no_hard_link_can_be_made(
    store: Store, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    folder = store.artifacts.materialise(artifact.digest)
    assert (folder / "data" / "rows.txt").read_text() == "one\ntwo\n"
    assert (folder / "data" / "rows.txt").stat().st_nlink == 1


def test_an_empty_folder_and_a_link_are_no_artifacts(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no file"):
        store.artifacts.put("dataset", tmp_path / "empty")
    (tmp_path / "empty" / "link").symlink_to("/etc/hosts")
    with pytest.raises(InvalidInput, match="link"):
        store.artifacts.put("dataset", tmp_path / "empty")


@pytest.mark.parametrize("digest", ["", "abc", "../x"])
def test_what_is_no_digest_is_refused(store: Store, digest: str) -> None:
    with pytest.raises(InvalidInput):
        store.artifacts.materialise(digest)


def test_an_unknown_artifact_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.artifacts.get("0" * 64)


def test_a_staged_artifact_is_not_recorded_until_it_is_added(store: Store, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    staged = store.artifacts.stage("report", tmp_path / "x.txt")
    assert store.artifacts.find(staged.digest) is None
    assert store.artifacts.add(staged) == store.artifacts.get(staged.digest)
