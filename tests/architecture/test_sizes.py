"""Files stay small, functions stay short, nothing is named after a junk drawer, and nothing is left half-done."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "espalier"
MAX_FILE_LINES, MAX_FUNCTION_LINES = 600, 80
DRAWERS = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
# Written in halves, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b|raise NotImpl" + r"emented")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:ho" + r"me|ro" + r"ot|wo" + r"rk|Us" + r"ers)/[\w.]+")

FILES = sorted(path for folder in ("src", "tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_no_file_is_too_long() -> None:
    long = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in long.items() if lines > MAX_FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    long = {
        f"{name_of(path)}:{function.lineno} {function.name}": lines_of(function)
        for path in FILES
        for function in functions_of(path)
        if lines_of(function) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_no_module_is_a_junk_drawer() -> None:
    assert [name_of(path) for path in MODULES if path.stem in DRAWERS] == []


@pytest.mark.parametrize("pattern", [UNFINISHED, MACHINE_PATH], ids=["unfinished work", "a path of one machine"])
def test_no_file_holds(pattern: re.Pattern[str]) -> None:
    kinds = {".py", ".md", ".yaml", ".toml", ".txt"}
    folders = [ROOT / name for name in ("src", "tests", "docs", "examples", "benchmarks")]  # what else lies here may go
    ours = [*(path for folder in folders for path in folder.rglob("*")), *ROOT.iterdir()]
    texts = [path for path in ours if path.suffix in kinds]
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in [*texts, ROOT / "Makefile", ROOT / ".ci" / "run"]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert silent == []


def test_every_public_function_and_class_of_a_module_is_documented() -> None:
    silent = []
    for path in MODULES:
        for node in ast.parse(path.read_text("utf-8")).body:
            public = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_"
            # What is all there in three lines says itself; the classes of the error tree are described by its drawing.
            plain = (node.end_lineno or 0) - node.lineno < 3
            if public and not plain and not ast.get_docstring(node):
                silent.append(f"{name_of(path)}:{node.lineno} {node.name}")
    assert silent == []


def test_libraries_do_not_print() -> None:
    prints = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if "cli" not in path.relative_to(SOURCE).parts
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert prints == []


def test_nothing_unpickles() -> None:
    loads = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and {"pickle", "dill", "cloudpickle", "joblib"} & {getattr(node, "module", ""), *(a.name for a in node.names)}
    ]
    assert loads == []
