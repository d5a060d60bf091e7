"""How well and how fast files are read: word and cell recall against expected Markdown, ms a page, by format.

    python benchmarks/readers.py [--worst 5] [FOLDER]

FOLDER holds `*/sources/*` with `*/groundtruth/NAME.md`, as docling's test data does; it defaults to the shared one. The
measures are those of `espalier.testing.recall`. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from espalier.data.readers.plugin import find_reader, known_suffixes
from espalier.data.readers.reading import read_file
from espalier.data.readers.source import SourceFile, hash_file, suffix_of
from espalier.testing.recall import cell_recall, missing_words, word_recall

SHARED = Path(__file__).parents[2] / "shared" / "data" / "documents"


@dataclass(slots=True)
class Result:
    """One file: `recall` is None where no text is expected of it."""

    name: str
    format: str
    reason: str
    recall: float | None
    cells: tuple[int, int]
    pages: int
    cpu_ms: float
    missing: str


def find_files(folder: Path) -> list[Path]:
    """Every file to read: what lies in a `sources` folder, and what lies in a folder without one."""
    known = known_suffixes()
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and suffix_of(path.name) in known]
    passed_over = {"groundtruth", "expected_outputs"}
    return [path for path in found if path.parent.name not in passed_over and path.name != "SOURCE.md"]


def expected_of(path: Path) -> str | None:
    """The expected Markdown of a source file, where there is one."""
    for folder in ("groundtruth", "expected_outputs"):
        beside = path.parent.parent / folder if path.parent.name == "sources" else path.parent / folder
        for name in (f"{path.name}.md", f"{path.stem}.md"):
            if (beside / name).is_file():
                return (beside / name).read_text("utf-8")
    return None


def measure(path: Path) -> Result:
    """Read one file and compare."""
    source = SourceFile(path, path.name, hash_file(path))
    documents, reason = read_file(source)
    start = time.process_time()
    with contextlib.suppress(Exception):  # judged above; here only the reader itself is timed, without its sandbox
        list(find_reader(path.name)(source))
    cpu_ms = (time.process_time() - start) * 1000
    if documents and all(document.dropped_because for document in documents):
        reason = documents[0].dropped_because  # a table of which no row could be read
    text = "\n\n".join(document.text for document in documents)
    pages = max([1, *(span.page for document in documents for span in document.spans)])
    expected = expected_of(path)
    if expected is None or reason:
        return Result(path.name, suffix_of(path.name), reason, None, (0, 0), pages, cpu_ms, "")
    missing = " ".join(f"{word}:{count}" for word, count in missing_words(expected, text).most_common(12))
    recall = word_recall(expected, text)
    # Of a file that is one table each row is a document, so there is no table in a text to look for.
    cells = (0, 0) if suffix_of(path.name) in ("csv", "tsv") else cell_recall(expected, text)
    return Result(path.name, suffix_of(path.name), reason, recall, cells, pages, cpu_ms, missing)


def summarise(results: list[Result]) -> dict[str, float]:
    """Figures of a set of files; averages are over files."""
    judged = [result.recall for result in results if result.recall is not None]
    found, wanted = (sum(result.cells[side] for result in results) for side in (0, 1))
    return {
        "files": len(results),
        "read": sum(not result.reason for result in results),
        "refused": sum(bool(result.reason) for result in results),
        "judged": len(judged),
        "word_recall": round(sum(judged) / len(judged), 4) if judged else -1.0,
        "cells": wanted,
        "cell_recall": round(found / wanted, 4) if wanted else -1.0,
        "ms_per_page": round(sum(result.cpu_ms for result in results) / sum(result.pages for result in results), 2),
    }


def main() -> None:
    """Print a table by format, the worst files, and everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED)
    parser.add_argument("--worst", type=int, default=5, help="how many of the worst files to list")
    args = parser.parse_args()
    paths = find_files(args.folder)
    for path in paths:  # once untimed: a format's library is imported with its first file
        measure(path)
    results = [measure(path) for path in paths]
    by_format: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_format[result.format].append(result)
    table = {name: summarise(group) for name, group in sorted(by_format.items())} | {"all": summarise(results)}
    columns = list(table["all"])
    print("".join(f"{name:>13}" for name in ("format", *columns)))
    for name, figures in table.items():
        print("".join(f"{value!s:>13}" for value in (name, *figures.values())))
    judged = sorted((result for result in results if result.recall is not None), key=lambda result: result.recall or 0)
    for result in judged[: args.worst]:
        print(f"{result.recall:7.4f} {result.name} cells {result.cells}: {result.missing}")
    for result in results:
        if result.reason:
            print(f"refused {result.name}: {result.reason}")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
