"""A file with every kind of trouble in it: each is found on its line, and nothing else is."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa
import pytest

from espalier.data.flow.batch import to_documents
from espalier.data.readers.problem import Problem, Tally
from espalier.data.readers.reading import read_source
from espalier.data.readers.source import SourceFile, hash_file
from espalier.data.readers.spec import SourceSpec
from espalier.testing.messy import Planted, write_messy

LONG_BYTES = 3_000_000


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> tuple[SourceFile, Planted]:
    path = tmp_path_factory.mktemp("messy") / "messy.jsonl"
    planted = write_messy(path, 20_000, long_line_bytes=LONG_BYTES)
    return SourceFile(path, "messy.jsonl", hash_file(path)), planted


def read(source: SourceFile, spec: SourceSpec) -> tuple[list[pa.RecordBatch], list[Problem]]:
    batches: list[pa.RecordBatch] = []
    problems: list[Problem] = []
    for item in read_source(source, spec.options()):
        problems.append(item) if isinstance(item, Problem) else batches.append(item)
    return batches, problems


def by_kind(problems: list[Problem]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for problem in problems:
        found[problem.kind].add(problem.line)
    return found


SPEC = SourceSpec(text="body", id="id", max_line_bytes=1 << 20)


def test_every_problem_is_found_on_its_line_and_no_other(messy: tuple[SourceFile, Planted]) -> None:
    source, planted = messy
    batches, problems = read(source, SPEC)
    found = by_kind(problems)
    for kind in ("broken_line", "not_object", "missing_text", "bom", "invalid_utf8", "null_bytes", "long_line"):
        assert found.pop(kind) == planted.lines[kind], kind
    assert found.pop("crlf") == {planted.crlf_first}
    assert planted.lines["late_column"] < found["mixed_schema"]
    assert found.pop("mixed_schema") <= planted.lines["mixed_schema"] | planted.lines["late_column"]
    changed = sum(problem.rows for problem in problems if "is text here" in problem.message)
    assert changed == len(planted.lines["mixed_schema"])
    assert not found
    assert sum(map(len, batches)) == planted.rows


def test_rows_keep_their_lines_and_places_through_all_of_it(messy: tuple[SourceFile, Planted]) -> None:
    source, _ = messy
    data = source.path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = data.split(b"\n")
    batches, _ = read(source, SPEC)
    for document in [document for batch in batches[::3] for document in to_documents(batch)][::50]:
        line = lines[int(document.tags["line"]) - 1]
        assert data[document.span.start : document.span.end] == line + b"\n"
        assert document.text[:20].encode() in line


@pytest.mark.parametrize("kind", ["mixed_schema", "bom", "invalid_utf8", "null_bytes"])
def test_rows_with_a_problem_are_left_out_where_that_is_the_policy(
    messy: tuple[SourceFile, Planted], kind: str
) -> None:
    source, planted = messy
    policy = {**SPEC.problems.model_dump(), kind: "skip"}
    batches, problems = read(source, SourceSpec(**{**SPEC.model_dump(), "problems": policy}))
    if kind == "bom":  # the file itself begins with one
        assert not batches and len(problems) == 1
        return
    kept = {int(document.tags["line"]) for batch in batches for document in to_documents(batch)}
    assert not kept & planted.lines[kind]
    assert len(kept) == planted.rows - len(planted.lines[kind])


def test_a_refusal_names_the_first_line_of_its_kind(messy: tuple[SourceFile, Planted]) -> None:
    source, planted = messy
    policy = {**SPEC.problems.model_dump(), "not_object": "refuse"}
    _, problems = read(source, SourceSpec(**{**SPEC.model_dump(), "problems": policy}))
    assert problems[-1].to_error().where == f"messy.jsonl:{min(planted.lines['not_object'])}"


def test_the_report_names_counts_first_places_and_what_to_do(messy: tuple[SourceFile, Planted]) -> None:
    source, planted = messy
    tally = Tally()
    for problem in read(source, SPEC)[1]:
        tally.add(problem)
    report = tally.lines()
    count = len(planted.lines["broken_line"])
    assert report[0].strip() == f"{count} broken lines, left out: mend these lines, or leave them out"
    assert report[1].strip().startswith(f"messy.jsonl:{min(planted.lines['broken_line'])}: not JSON")
    assert tally.counts["null_bytes repaired"] == len(planted.lines["null_bytes"])
    assert all(len(line) < 200 for line in report)
