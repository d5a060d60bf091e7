"""A dataset's key holds all that its build depends on: else an old version would be served for new sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier.data.spec import DataSpec
from espalier.pipeline.key import Ingredients, collect
from espalier.services.steps.data_build import data_build


class NoFacts:
    """Digests without a store to remember them."""

    def digests(self, paths: list[Path]) -> dict[Path, str]:
        return {path: path.read_text() for path in paths}


class NoCode:
    """No code at all: it is not what changes here."""

    def scan(self, module: str) -> NoCode:
        return self

    modules: dict[str, str] = {}
    packages: dict[str, str] = {}


def ingredients(folder: Path, **changes: object) -> Ingredients:
    spec = DataSpec.model_validate({"task": {"kind": "text"}, "source": {"path": "data/a.jsonl"}} | changes)
    return collect(
        data_build,
        spec,
        {},
        seed=0,
        folder=folder,
        lock="",
        scanner=NoCode(),  # type: ignore[arg-type]
        facts=NoFacts(),  # type: ignore[arg-type]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text('{"text": "a row"}\n')
    return tmp_path


@pytest.mark.parametrize(
    "source", [{"path": "data/a.jsonl"}, {"path": "data", "include": ["*.jsonl"]}, {"path": "data/*.jsonl"}]
)
@pytest.mark.parametrize("name", ["SOURCE.md", "LICENSE", "README.md"])
def test_terms_beside_the_sources_are_in_the_key(folder: Path, source: dict[str, object], name: str) -> None:
    before = ingredients(folder, source=source)
    (folder / "data" / name).write_text("licence: MIT\n")
    assert ingredients(folder, source=source) != before


def test_a_salt_in_the_environment_is_in_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [{"step": "redact", "mode": "hash", "salt": "env:DATA_SALT"}]
    monkeypatch.setenv("DATA_SALT", "one salt of sufficient length")
    before = ingredients(folder, steps=steps)
    assert "one salt" not in before.model_dump_json()
    monkeypatch.setenv("DATA_SALT", "another salt of such length")
    assert ingredients(folder, steps=steps) != before
    assert ingredients(folder).env == {}
