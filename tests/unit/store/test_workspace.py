"""A workspace is found the way git finds its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from espalier.core.errors import InvalidInput, NotFound
from espalier.store.workspace import find_workspace, init_workspace


def test_the_nearest_workspace_above_is_found(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    inner = init_workspace(tmp_path / "a" / "b")
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    assert find_workspace(deep) == inner
    assert find_workspace(tmp_path / "a").root == tmp_path


def test_without_a_workspace_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        find_workspace(tmp_path)
    assert "espalier init" in caught.value.hint


def test_the_variable_names_the_workspace_unless_a_place_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, here = init_workspace(tmp_path / "named"), init_workspace(tmp_path / "here")
    monkeypatch.chdir(here.root)
    monkeypatch.setenv("ESPALIER_WORKSPACE", str(named.root))
    assert find_workspace() == named
    assert find_workspace(here.root) == here
    monkeypatch.setenv("ESPALIER_WORKSPACE", str(tmp_path / "nowhere"))
    with pytest.raises(NotFound, match="ESPALIER_WORKSPACE"):
        find_workspace()


def test_making_a_workspace_again_keeps_its_settings(tmp_path: Path) -> None:
    workspace = init_workspace(tmp_path)
    workspace.config_file.write_text("actor: ann\n")
    init_workspace(tmp_path)
    assert workspace.config_file.read_text() == "actor: ann\n"


def test_a_file_cannot_be_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput):
        init_workspace(tmp_path / "file")


def test_finding_a_workspace_imports_no_database(tmp_path: Path) -> None:
    code = "import sys, espalier.store.workspace; print([m for m in ('sqlalchemy', 'alembic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_opening_a_store_that_is_up_to_date_imports_no_alembic(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from espalier.store.store import open_store; from espalier.store.workspace import init_workspace\n"
        f"open_store(init_workspace(Path({str(tmp_path)!r}))).close(); print('alembic' in sys.modules)"
    )
    seen = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert seen == ["True", "False"]
