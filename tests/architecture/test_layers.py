"""Imports point down and never in a circle; torch and web frameworks stay where they belong."""

from __future__ import annotations

import contextlib
import graphlib
import io
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("espalier", cache_dir=None)


def test_the_contracts_of_pyproject_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = lint_imports(no_cache=True)
    assert code == 0, said.getvalue()


def test_no_module_imports_itself_through_others(graph: grimp.ImportGraph) -> None:
    edges = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        list(graphlib.TopologicalSorter(edges).static_order())
    except graphlib.CycleError as error:
        pytest.fail("an import cycle: " + " <- ".join(error.args[1]))


def test_every_package_stands_in_the_layers(graph: grimp.ImportGraph) -> None:
    packages = {module.split(".")[1] for module in graph.modules if "." in module}
    layers = (ROOT / "pyproject.toml").read_text("utf-8").split("layers = [", 1)[1].split("\n]", 1)[0]
    unplaced = {package for package in packages if f"espalier.{package}" not in layers}
    # Data shipped with the package, and public test support that reaches everywhere.
    assert unplaced <= {"models", "recipes", "testing"}


def test_no_product_code_imports_test_support(graph: grimp.ImportGraph) -> None:
    support = {"espalier.testing", *graph.find_descendants("espalier.testing")}
    users = {
        user
        for module in support
        for user in graph.find_modules_that_directly_import(module)
        if not user.startswith("espalier.testing")
    }
    assert users == set()
