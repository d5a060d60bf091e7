"""What is imported is declared, what is declared is pinned, and optional packages are imported where wanted."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PINS = (ROOT / "constraints.txt").read_text("utf-8")
# Imported by the package that is declared, and released in step with it.
COMES_WITH = {"pydantic-core": "pydantic", "botocore": "boto3"}
# vLLM pins torch and transformers itself, other versions than ours: it goes into an environment of its own.
PINS_OTHERS = {"vllm"}


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=; ]", requirement)[0]).lower()


CORE = {canonical(requirement) for requirement in PROJECT["dependencies"]}
EXTRAS = {canonical(requirement) for group in PROJECT["optional-dependencies"].values() for requirement in group}


def imports_of(path: Path, *, at_top: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def distributions_of(folder: str, *, at_top: bool = False) -> dict[str, set[str]]:
    """Distribution -> files that import it."""
    known = packages_distributions()
    found: dict[str, set[str]] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for name in imports_of(path, at_top=at_top):
            if name in known and name not in sys.stdlib_module_names:
                for distribution in {canonical(each) for each in known[name]}:
                    found.setdefault(COMES_WITH.get(distribution, distribution), set()).add(str(path.relative_to(ROOT)))
    found.pop("espalier", None)
    return found


def test_every_import_of_the_package_is_declared() -> None:
    undeclared = {name: files for name, files in distributions_of("src").items() if name not in CORE | EXTRAS}
    assert undeclared == {}


def test_every_import_of_the_tests_is_declared() -> None:
    undeclared = {name: files for name, files in distributions_of("tests").items() if name not in CORE | EXTRAS}
    assert undeclared == {}


def test_an_optional_package_is_never_imported_at_the_top_of_a_core_module() -> None:
    eager = {name: files for name, files in distributions_of("src", at_top=True).items() if name not in CORE}
    allowed = (
        "src/espalier/web/",
        "src/espalier/testing/",
        "src/espalier/store/s3.py",
        "src/espalier/train/reinforcement/trainer.py",
    )
    assert {file for files in eager.values() for file in files if not file.startswith(allowed)} == set()


def test_every_dependency_is_pinned_exactly_and_nothing_local_is() -> None:
    pins = {canonical(line): line for line in PINS.splitlines() if line and not line.startswith("#")}
    assert sorted((CORE | EXTRAS) - set(pins) - {"espalier"} - PINS_OTHERS) == []
    assert [line for line in pins.values() if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []
    assert pins["torch"] == "torch==2.13.0"
