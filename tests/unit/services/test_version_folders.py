"""Dataset versions named in a recipe are replaced by their folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import NotFound
from espalier.data.spec import DataSpec
from espalier.services.catalogue import publish_dataset
from espalier.services.context import Context, open_context
from espalier.services.versionfolders import place_versions
from espalier.store.workspace import init_workspace


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path)
    opened = open_context(tmp_path, actor="ada")
    yield opened
    opened.close()


def recipe(*against: str) -> DataSpec:
    return DataSpec.model_validate(
        {
            "source": {"path": "rows"},
            "steps": [{"step": "normalise"}, {"step": "dedup", "against": against}],
            "task": {"kind": "text"},
            "leaks": {"against": against},
        }
    )


def test_a_version_s_folder_stands_in_the_recipe_relative_to_the_sources(context: Context, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "documents-00000.parquet").write_bytes(b"rows")
    artifact = context.store.artifacts.put("dataset", tmp_path / "made", {"name": "support"})
    publish_dataset(context.store, artifact, "support", "ada")
    (tmp_path / "rows").mkdir()
    placed = place_versions(context.store, recipe("dataset:support@v1", "../exam.csv"), tmp_path)
    folder, other = placed.leaks.against
    assert other == "../exam.csv" and placed.steps[1].against == (folder, other)  # type: ignore[attr-defined]
    assert (tmp_path / "rows" / folder / "documents-00000.parquet").read_bytes() == b"rows"
    assert not Path(folder).is_absolute() and Path(folder).name == artifact.digest


def test_a_recipe_without_names_is_left_as_it_is(context: Context, tmp_path: Path) -> None:
    assert place_versions(context.store, recipe("../v1"), tmp_path) == recipe("../v1")


def test_a_version_nobody_built_is_not_found(context: Context, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no dataset 'nobody'"):
        place_versions(context.store, recipe("dataset:nobody"), tmp_path)
