"""Other projects' parser fixtures, read: every file, or a reason; and how much of what they expect is found.

The measure is that of `espalier.testing.recall`, taken by `benchmarks/readers.py`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT.parent / "shared" / "data" / "documents"
MIN_WORD_RECALL = 0.98  # on average over the files; 0.995 when it was set
MIN_CELL_RECALL = 0.9  # of all expected cells; 0.94 when it was set, most of what is missing merged in the expectation
MIN_FORMAT_RECALL = 0.95

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the shared documents are not on this machine")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reader_benchmark", ROOT / "benchmarks" / "readers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(benchmark: Any) -> list[Any]:
    return [benchmark.measure(path) for path in benchmark.find_files(FOLDER)]


def test_each_file_is_read_or_refused_with_a_reason(results: list[Any]) -> None:
    assert results
    assert all(result.reason.startswith("unreadable: ") for result in results if result.reason)


def test_nearly_every_expected_word_is_found(benchmark: Any, results: list[Any]) -> None:
    assert benchmark.summarise(results)["word_recall"] >= MIN_WORD_RECALL


def test_no_format_is_read_worse_than_the_others(benchmark: Any, results: list[Any]) -> None:
    formats: dict[str, list[Any]] = defaultdict(list)
    for result in results:
        if result.recall is not None:
            formats[result.format].append(result)
    poor = {name: benchmark.summarise(group)["word_recall"] for name, group in formats.items()}
    assert {name: recall for name, recall in poor.items() if recall < MIN_FORMAT_RECALL} == {}


def test_tables_stay_tables(benchmark: Any, results: list[Any]) -> None:
    assert benchmark.summarise(results)["cell_recall"] >= MIN_CELL_RECALL
