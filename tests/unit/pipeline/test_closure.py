"""A step's code is all it can reach, found without running any of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from espalier.pipeline.closure import Closure, CodeScanner
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = open_store(init_workspace(tmp_path / "workspace"))
    yield opened
    opened.close()


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / (name.replace("__", "/").replace("/init", "/__init__") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def scan(store: Store, module: str) -> Closure:
    import importlib

    importlib.invalidate_caches()
    return CodeScanner(store.facts).scan(module)


def test_imports_are_followed_in_every_form(store: Store, folder: Path) -> None:
    write(
        folder,
        zz_top="import zz_a\nfrom zz_b import thing\nfrom zz_pack import inner\nimport zz_pack.deep.leaf as leaf\n",
        zz_a="def f():\n    import zz_lazy\n",
        zz_b="thing = 1",
        zz_lazy="try:\n    import zz_optional\nexcept ImportError:\n    pass\n",
        zz_optional="",
        zz_pack__init="from . import sibling",
        zz_pack__inner="from .sibling import x\nfrom ..zz_never import y\n",
        zz_pack__sibling="x = 1",
        zz_pack__deep__init="",
        zz_pack__deep__leaf="from ...zz_pack import inner\nfrom .. import cousin",
        zz_pack__cousin="",
        zz_unreached="",
    )
    assert set(scan(store, "zz_top").modules) == {
        "zz_top",
        "zz_a",
        "zz_b",
        "zz_lazy",
        "zz_optional",
        "zz_pack",
        "zz_pack.inner",
        "zz_pack.sibling",
        "zz_pack.deep",
        "zz_pack.deep.leaf",
        "zz_pack.cousin",
    }


def test_imports_for_type_checkers_do_not_count_but_their_else_does(store: Store, folder: Path) -> None:
    write(
        folder,
        zz_top="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import zz_types\nelse:\n    import zz_real\n",
        zz_types="",
        zz_real="",
    )
    assert set(scan(store, "zz_top").modules) == {"zz_top", "zz_real"}


def test_modules_that_import_each_other_are_scanned_once(store: Store, folder: Path) -> None:
    write(folder, zz_top="import zz_a", zz_a="import zz_top")
    assert set(scan(store, "zz_top").modules) == {"zz_top", "zz_a"}


def test_a_module_imported_by_a_literal_name_counts(store: Store, folder: Path) -> None:
    write(folder, zz_top="import importlib\nm = importlib.import_module('zz_a')\n", zz_a="")
    assert "zz_a" in scan(store, "zz_top").modules


def test_a_namespace_package_is_followed(store: Store, folder: Path) -> None:
    write(folder, zz_top="from zz_space import part", zz_space__part="")
    assert set(scan(store, "zz_top").modules) == {"zz_top", "zz_space.part"}


def test_a_plugin_group_brings_all_its_plugins(store: Store, folder: Path) -> None:
    from espalier.core.plugins import find_plugins

    write(
        folder, zz_top="from espalier.core.plugins import load_plugin\nread = load_plugin('espalier.blobs', 'file')\n"
    )
    found = scan(store, "zz_top").modules
    assert {point.module for point in find_plugins("espalier.blobs").values()} <= set(found)
    assert "espalier.core.plugins" in found
    write(folder, zz_other="from espalier.core import plugins")
    assert "espalier.store.s3" not in scan(store, "zz_other").modules


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("x=1  # one", True),
        ("\n\nx = 1\n", True),
        ("x = (1)", True),
        ("x = 2", False),
        ("y = 1", False),
        ('"""A docstring may hold a prompt."""\nx = 1', False),
    ],
)
def test_comments_and_layout_are_free_and_everything_else_is_code(
    store: Store, folder: Path, text: str, same: bool
) -> None:
    write(folder, zz_top="x = 1")
    before = scan(store, "zz_top").modules
    write(folder, zz_top=text)
    assert (scan(store, "zz_top").modules == before) is same


def test_scanning_imports_nothing_and_survives_what_is_no_python(store: Store, folder: Path) -> None:
    write(folder, zz_top="import zz_broken\nraise SystemExit('imported!')", zz_broken="def (:")
    assert set(scan(store, "zz_top").modules) == {"zz_top", "zz_broken"}
    assert "zz_top" not in sys.modules


def test_third_party_packages_count_by_version_and_the_standard_library_not_at_all(store: Store, folder: Path) -> None:
    import importlib.metadata

    write(folder, zz_top="import os, hypothesis.strategies\nfrom pydantic import BaseModel\nimport zz_not_installed\n")
    found = scan(store, "zz_top")
    assert set(found.modules) == {"zz_top"}
    assert found.packages == {name: importlib.metadata.version(name) for name in ("hypothesis", "pydantic")}


def test_a_package_is_found_though_its_module_has_another_name(store: Store, folder: Path) -> None:
    write(folder, zz_top="import ruamel.yaml\nimport _pytest.config\n")
    assert set(scan(store, "zz_top").packages) >= {"ruamel.yaml", "pytest"}


def test_the_code_of_espalier_itself_counts(store: Store) -> None:
    found = scan(store, "espalier.pipeline.key").modules
    assert {"espalier", "espalier.core.ids", "espalier.store.facts", "espalier.store.tables"} <= set(found)
    assert all(digest != "missing" for digest in found.values())


def test_a_module_that_is_not_there_is_missing(store: Store) -> None:
    assert scan(store, "zz_nowhere").modules == {"zz_nowhere": "missing"}
