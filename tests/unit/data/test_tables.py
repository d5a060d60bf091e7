"""Tables as sources: rows in batches, what is wrong with them as data, and the policies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.flow.batch import SCHEMA, to_documents
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.plugin import find_reader
from espalier.data.readers.problem import Problem, ProblemPolicy
from espalier.data.readers.reading import read_source
from espalier.data.readers.source import SourceFile
from espalier.data.readers.spec import SourceSpec

MakeSource = Callable[[str, bytes], SourceFile]


def options(**changes: Any) -> ReadOptions:
    policy = {**ReadOptions().problems, **changes.pop("problems", {})}
    return ReadOptions(problems=policy, **changes)


def read(source: SourceFile, **changes: Any) -> tuple[list[Document], list[Problem]]:
    documents: list[Document] = []
    problems: list[Problem] = []
    for item in read_source(source, options(**changes)):
        if isinstance(item, Problem):
            problems.append(item)
        else:
            item.validate(full=True)
            assert item.schema.equals(SCHEMA)
            documents += to_documents(item)
    return documents, problems


def told(problems: list[Problem]) -> list[tuple[str, int, str]]:
    return [(problem.kind, problem.line, problem.action) for problem in problems]


# CSV


def test_each_csv_row_is_a_document_with_its_columns_as_tags_and_its_place_as_span(source: MakeSource) -> None:
    text = 'ref,note\nA-1,"two\nlines"\nA-2,short\n'
    first, second = read(source("t.csv", text.encode()))[0]
    assert first.text == "ref: A-1\nnote: two\nlines"
    assert first.tags["ref"] == "A-1" and (first.tags["line"], second.tags["line"]) == ("2", "4")
    assert text[first.span.start : first.span.end] == 'A-1,"two\nlines"\n'
    assert text[second.span.start : second.span.end] == "A-2,short\n"


def test_a_column_called_text_is_the_text(source: MakeSource) -> None:
    ((document,), _) = read(source("t.csv", b"text;kind\nHello;x\n"))
    assert document.text == "Hello" and document.tags == {"format": "csv", "kind": "x", "line": "2"}


def test_tabs_part_the_cells_of_a_tsv_whatever_else_is_in_it(source: MakeSource) -> None:
    ((document,), _) = read(source("t.tsv", b"a,b;c\ttext\n1\tHello, you\n"))
    assert document.text == "Hello, you" and document.tags["a,b;c"] == "1"


def test_ragged_rows_are_filled_or_kept_whole_and_reported(source: MakeSource) -> None:
    documents, problems = read(source("t.csv", b"a,b\n1,2\n1,2,3\n4\n"))
    assert [document.text for document in documents] == ["a: 1\nb: 2", "a: 1\nb: 2\ncolumn 3: 3", "a: 4"]
    assert told(problems) == [("ragged_row", 3, "repair"), ("ragged_row", 4, "repair")]
    assert problems[0].message == "3 fields under a header of 2"


def test_ragged_rows_are_left_out_when_the_policy_says_so(source: MakeSource) -> None:
    documents, problems = read(source("t.csv", b"a,b\n1,2\n1,2,3\n4,5\n"), problems={"ragged_row": "skip"})
    assert [document.tags["a"] for document in documents] == ["1", "4"]
    assert [document.id[-2:] for document in documents] == [".1", ".3"]
    assert told(problems) == [("ragged_row", 3, "skip")]


def test_an_open_quote_costs_its_line_only(source: MakeSource) -> None:
    documents, problems = read(source("t.csv", b'a,b\n1,2\n3,"open\n4,5\n6,7\n'))
    assert [document.tags["a"] for document in documents] == ["1", "4", "6"]
    assert told(problems) == [("broken_line", 3, "skip")]


def test_open_quotes_without_end_are_given_up(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.data.readers.delimited.MAX_RECOVERIES", 3)
    rows = b"".join(b'%d,"open %s\n' % (n, b"x" * 40) for n in range(400))
    _, problems = read(source("t.csv", b"a,b\n" + rows), max_line_bytes=100)
    assert problems[-1].message.endswith("the rest of the file was not read")


@pytest.mark.parametrize(
    ("header", "names"), [(b"a,a", ["a", "a 2"]), (b"a,", ["a", "column 2"]), (b"a,a 2,a", ["a", "a 2", "a 3"])]
)
def test_column_names_are_made_up_where_they_are_missing_or_taken(
    source: MakeSource, header: bytes, names: list[str]
) -> None:
    ((document,), (problem,)) = read(source("t.csv", header + b"\n" + b",".join([b"1"] * len(names)) + b"\n"))
    assert document.text == "\n".join(f"{name}: 1" for name in names)
    assert (problem.kind, problem.line, problem.action) == ("header", 1, "repair")


def test_a_bad_header_leaves_the_file_out_when_the_policy_says_so(source: MakeSource) -> None:
    documents, problems = read(source("t.csv", b"a,a\n1,2\n"), problems={"header": "skip"})
    assert not documents and told(problems) == [("header", 1, "skip")]


def test_a_header_of_a_million_columns_is_refused(source: MakeSource) -> None:
    documents, (problem,) = read(source("t.csv", b"," * 1_000_000 + b"a\n" + b"1\n" * 1000))
    assert not documents and problem.kind == "unreadable" and "columns, more than" in problem.message


# JSON lines


def test_a_jsonl_line_that_is_no_json_is_reported_with_its_line_number(source: MakeSource) -> None:
    documents, problems = read(source("t.jsonl", b'{"text": "one"}\n\n{"text": \n[1]\n{"text": "two"}\n'))
    assert [(document.text, document.id[-2:]) for document in documents] == [("one", ".1"), ("two", ".4")]
    assert told(problems) == [("broken_line", 3, "skip"), ("not_object", 4, "skip")]
    assert problems[0].message == "not JSON: Expecting value at column 10"
    assert problems[1].message == "a JSON object is wanted, not list"


def test_two_rows_on_one_line_cannot_make_up_for_one_on_two_lines(source: MakeSource) -> None:
    documents, problems = read(source("t.jsonl", b'{"text":"a"},{"text":"b"}\n{"text":"c",\n"x":1}\n'))
    assert not documents and [problem.line for problem in problems] == [1, 2, 3]


def test_many_bad_lines_between_good_ones_are_each_found(source: MakeSource) -> None:
    lines = [b'{"text": "x%d"}' % n if n % 3 else b"bad" for n in range(1, 1000)]
    documents, problems = read(source("t.jsonl", b"\n".join(lines)))
    assert [document.text for document in documents] == [f"x{n}" for n in range(1, 1000) if n % 3]
    assert [problem.line for problem in problems] == [n for n in range(1, 1000) if n % 3 == 0]


def test_a_bad_line_stops_the_reading_when_asked_to(source: MakeSource) -> None:
    file = source("t.jsonl", b'{"text": "one"}\nnope\n{"text": "two"}\n')
    *_, last = read_source(file, SourceSpec(on_error="fail").options())
    assert isinstance(last, Problem)
    with pytest.raises(InvalidInput, match=r"t\.jsonl:2: broken line: not JSON"):
        raise last.to_error()


def test_a_refused_problem_is_the_last_thing_that_is_read_and_makes_an_error(source: MakeSource) -> None:
    file = source("t.jsonl", b'{"text": "one"}\nnope\n{"text": "two"}\nnope\n')
    *_, last = read_source(file, options(problems={"broken_line": "refuse"}))
    assert isinstance(last, Problem) and last.line == 2
    error = last.to_error()
    assert error.where == "t.jsonl:2" and "source.problems: {broken_line: skip}" in error.hint


def test_values_are_tags_when_short_whatever_their_type(source: MakeSource) -> None:
    row = {"text": "t", "n": 1, "f": 1.0, "b": True, "z": None, "l": [1, "ü"], "o": {"b": 1, "a": 2}, "long": "x" * 81}
    ((document,), _) = read(source("t.jsonl", json.dumps(row).encode()))
    tags = {"n": "1", "f": "1.0", "b": "true", "l": '[1, "ü"]', "o": '{"a": 2, "b": 1}'}
    assert document.tags == {**tags, "format": "jsonl", "line": "1"}


def test_numbers_that_orjson_does_not_know_are_still_read(source: MakeSource) -> None:
    ((document,), problems) = read(source("t.jsonl", b'{"text": "t", "n": NaN, "i": 123456789012345678901234567890}'))
    assert document.tags["n"] == "NaN" and document.tags["i"] == "123456789012345678901234567890"
    assert problems == []


def test_another_column_may_be_the_text_and_rows_without_it_are_reported(source: MakeSource) -> None:
    rows = b'{"body": "one", "text": "no"}\n{"text": "no"}\n{"body": " "}\n{"body": 3}\n'
    documents, problems = read(source("t.jsonl", rows), text="body")
    assert [document.text for document in documents] == ["one", "3"]
    assert documents[0].tags["text"] == "no" and "body" not in documents[0].tags
    assert told(problems) == [("mixed_schema", 4, "repair"), ("missing_text", 2, "skip"), ("missing_text", 3, "skip")]


def test_rows_are_kept_as_json_with_no_tags_but_format_and_line(source: MakeSource) -> None:
    rows = b'{"text": "one", "n": 1}\r\n{"n": [1, {"a": 2}]}\n'
    _, batch, _ = read_source(source("t.jsonl", rows), options(keep_rows=True))  # between two problems
    assert isinstance(batch, pa.RecordBatch)
    assert batch.column("row").to_pylist() == ['{"text": "one", "n": 1}', '{"n": [1, {"a": 2}]}']
    assert [dict(tags) for tags in batch.column("tags").to_pylist()] == [
        {"format": "jsonl", "line": "1"},
        {"format": "jsonl", "line": "2"},
    ]
    assert batch.column("text").to_pylist() == ["", ""]


def test_a_column_that_changes_its_type_is_reported_with_both_lines_and_may_be_left_out(source: MakeSource) -> None:
    rows = b'{"text":"a","n":1}\n{"text":"b","n":"two"}\n{"text":"c","n":null}\n{"text":"d","n":"x"}\n'
    documents, (problem,) = read(source("t.jsonl", rows))
    assert [document.tags.get("n") for document in documents] == ["1", "two", None, "x"]
    assert (problem.kind, problem.line, problem.rows) == ("mixed_schema", 2, 2)
    assert problem.message == "column 'n' is text here, number on line 1"
    documents, _ = read(source("t.jsonl", rows), problems={"mixed_schema": "skip"})
    assert [document.text for document in documents] == ["a", "c"]


def test_a_column_that_appears_late_is_reported_once(source: MakeSource) -> None:
    rows = [b'{"text":"a"}'] * 1500 + [b'{"text":"b","extra":1}'] * 3
    documents, (problem,) = read(source("t.jsonl", b"\n".join(rows)))
    assert len(documents) == 1503
    assert (problem.kind, problem.line) == ("mixed_schema", 1501)


def test_rows_that_share_no_column_take_no_more_than_their_own_room(source: MakeSource) -> None:
    rows = b"\n".join(json.dumps({f"k{n}-{k}": k for k in range(4)}).encode() for n in range(5_000))
    documents, problems = read(source("t.jsonl", rows))
    assert len(documents) == 5_000 and documents[4_999].tags["k4999-3"] == "3"
    assert len(problems) <= 1_001


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (b'\xef\xbb\xbf{"text": "x"}', "bom", "x"),
        (b'{"text": "a\xffb"}', "invalid_utf8", "a\ufffdb"),
        (b'{"text": "a\\u0000b"}', "null_bytes", "ab"),
        (b'{"text":\x00 "ab"}', "null_bytes", "ab"),
        (b'{"text": "a\\ud800b"}', "invalid_utf8", "a\ufffdb"),
    ],
)
def test_a_damaged_line_is_repaired_or_left_out(source: MakeSource, line: bytes, kind: str, text: str) -> None:
    good = '{"text": "gut: ü und noch viel mehr Text, damit ein NUL selten ist"}\n'.encode() * 4
    documents, problems = read(source("t.jsonl", good + line + b"\n" + good))
    assert [document.text for document in documents][4] == text
    assert told(problems) == [(kind, 5, "repair")]
    documents, problems = read(source("t.jsonl", good + line + b"\n" + good), problems={kind: "skip"})
    assert len(documents) == 8 and told(problems) == [(kind, 5, "skip")]


def test_a_byte_order_mark_and_crlf_are_repaired_and_reported_once(source: MakeSource) -> None:
    data = b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n'
    documents, problems = read(source("t.jsonl", data))
    assert [document.text for document in documents] == ["a", "b"]
    assert told(problems) == [("bom", 1, "repair"), ("crlf", 1, "repair")] and problems[1].rows == 2
    documents, problems = read(source("t.jsonl", data), problems={"bom": "skip"})
    assert not documents and told(problems) == [("bom", 1, "skip")]


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp1252"])
def test_a_table_in_another_encoding_is_decoded_and_reported(source: MakeSource, name: str, encoding: str) -> None:
    rows = ["Die Größe der Übertragung genügt für die Prüfung.", "Frau Müller hört den Gerätefehler schon länger."]
    text = "\n".join(
        [json.dumps({"text": row}, ensure_ascii=False) for row in rows] if name == "t.jsonl" else ["text|n", *rows]
    )
    text = (
        text if name == "t.jsonl" else "\n".join(line + ("|1" if n else "") for n, line in enumerate(text.split("\n")))
    )
    documents, (problem,) = read(source(name, text.encode(encoding)))
    assert [document.text for document in documents] == rows
    assert problem.kind == "encoding" and problem.action == "repair"


def test_a_line_that_is_too_long_is_reported_and_passed_without_being_held(source: MakeSource) -> None:
    long = b'{"text": "' + b"x" * 200_000 + b'"}\n'
    documents, problems = read(source("t.jsonl", b'{"text": "a"}\n' + long + b'{"text": "b"}\n'), max_line_bytes=1000)
    assert [(document.text, document.tags["line"]) for document in documents] == [("a", "1"), ("b", "3")]
    assert told(problems) == [("long_line", 2, "skip")] and problems[0].message.startswith(f"{len(long) - 1} bytes")


def test_a_line_longer_than_a_block_is_passed_too(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.data.readers.lines.BLOCK_BYTES", 1_000)
    monkeypatch.setattr("espalier.data.readers.lines._SAMPLE_BYTES", 1_000)
    long = b'{"text": "' + b"x" * 50_000 + b'"}\n'
    documents, problems = read(source("t.jsonl", b'{"text": "a"}\n' + long + b'{"text": "b"}\n'), max_line_bytes=2_000)
    assert [(document.text, document.tags["line"]) for document in documents] == [("a", "1"), ("b", "3")]
    (problem,) = problems
    assert (problem.kind, problem.line) == ("long_line", 2)
    spans = [document.span for document in documents]
    assert spans[1].start == 14 + len(long)


def test_blocks_of_any_size_give_the_same_rows(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = b"".join(
        json.dumps({"text": "ü" * (n % 50), "n": n}, ensure_ascii=False).encode() + b"\n" for n in range(1, 400)
    )
    file = source("t.jsonl", rows)
    whole, _ = read(file)
    monkeypatch.setattr("espalier.data.readers.lines.BLOCK_BYTES", 333)
    monkeypatch.setattr("espalier.data.readers.lines._SAMPLE_BYTES", 100)
    monkeypatch.setattr("espalier.data.readers.lines.BLOCK_LINES", 7)
    pieces, _ = read(file)
    assert pieces == whole and len(whole) == 399


def test_binary_bytes_are_no_table(source: MakeSource) -> None:
    for name in ("t.jsonl", "t.csv", "t.json"):
        documents, (problem,) = read(source(name, bytes(range(256)) * 40))
        assert not documents and problem.kind == "unreadable" and "binary" in problem.message


def test_compressed_rows_have_spans_in_the_uncompressed_text(source: MakeSource) -> None:
    text = b'{"text": "one"}\n{"text": "two"}\n'
    file = source("t.jsonl.gz", gzip.compress(text))
    documents, _ = read(file)
    assert [text[document.span.start : document.span.end] for document in documents] == text.splitlines(keepends=True)
    assert {document.span.blob for document in documents} == {file.sha256} and documents[0].tags["format"] == "jsonl"


def test_a_torn_compressed_file_gives_what_it_has_and_says_so(source: MakeSource) -> None:
    rows = b"".join(b'{"text": "row %d"}\n' % n for n in range(50_000))
    _, problems = read(source("t.jsonl.gz", gzip.compress(rows)[:-5_000]))
    assert problems[-1].kind == "unreadable" and "does not unpack" in problems[-1].message


def test_progress_ends_at_the_size_of_the_file(source: MakeSource) -> None:
    file = source("t.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 100))
    seen: list[tuple[int, int, int]] = []
    for _ in read_source(file, options(), lambda *progress: seen.append(progress)):
        pass
    assert seen[-1] == (file.path.stat().st_size, file.path.stat().st_size, 100)


def test_a_file_that_is_bad_throughout_is_no_list_of_all_its_lines(
    source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier.data.readers.reading.MAX_TOLD", 3)
    documents, problems = read(source("t.jsonl", b"bad\n" * 10 + b'{"text": "a"}\n'))
    assert len(documents) == 1 and [problem.line for problem in problems] == [1, 2, 3, 4]
    assert sum(problem.rows for problem in problems) == 10
    assert problems[-1].message.startswith("and from here on more like it: not JSON")


# JSON


def test_an_array_of_objects_is_a_table(source: MakeSource) -> None:
    data = '[\n {"text": "ü"},\n {"text": "b",\n  "n": 2}, 5\n]\n'.encode()
    documents, problems = read(source("t.json", data))
    assert [(document.text, document.tags["line"]) for document in documents] == [("ü", "2"), ("b", "3")]
    assert [data[document.span.start : document.span.end] for document in documents] == [
        '{"text": "ü"}'.encode(),
        b'{"text": "b",\n  "n": 2}',
    ]
    assert told(problems) == [("not_object", 4, "skip")]


def test_an_array_is_read_alike_in_pieces_of_any_size(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    file = source("t.json", json.dumps([{"text": "ü" * (n % 40 + 1), "n": n} for n in range(300)]).encode())
    whole, _ = read(file)
    monkeypatch.setattr("espalier.data.readers.jsonarray._PIECE_BYTES", 61)
    monkeypatch.setattr("espalier.data.readers.lines._SAMPLE_BYTES", 64)
    assert read(file)[0] == whole and len(whole) == 300


@pytest.mark.parametrize("tail", [b"", b", {", b", nope]"])
def test_a_broken_array_gives_what_came_before(source: MakeSource, tail: bytes) -> None:
    documents, problems = read(source("t.json", b'[{"text": "a"}' + tail))
    assert [document.text for document in documents] == ["a"]
    assert problems[-1].kind == "broken_line" and "the rest of the file was not read" in problems[-1].message


def test_an_object_with_one_list_of_objects_is_that_table(source: MakeSource) -> None:
    documents, _ = read(source("t.json", b'{"version": 1,\n "data": [{"text": "a"}, {"text": "b"}]}'))
    assert [document.text for document in documents] == ["a", "b"]


def test_json_lines_called_json_are_read_as_lines(source: MakeSource) -> None:
    documents, _ = read(source("t.json", b'{"text": "a"}\n{"text": "b"}\n'))
    assert [document.text for document in documents] == ["a", "b"]


def test_any_other_json_is_one_document(source: MakeSource) -> None:
    ((document,), _) = read(source("t.json", b'{"name": "x",\n "list": [1, 2]}'))
    assert document.text == '{"name": "x",\n "list": [1, 2]}'


def test_json_nested_too_deeply_is_refused(source: MakeSource) -> None:
    for name in ("t.json", "t.jsonl"):
        documents, problems = read(source(name, b"[" * 200_000))
        assert not documents and problems


# Parquet


def test_parquet_rows_are_documents_without_their_pictures(source: MakeSource) -> None:
    sink = pa.BufferOutputStream()
    columns = {"text": ["a", "b"], "n": [1, None], "image": [b"\x00", b"\x01"], "when": [{"x": 1}, {"x": 2}]}
    parquet.write_table(pa.table(columns), sink)
    documents, problems = read(source("t.parquet", sink.getvalue().to_pybytes()))
    assert [document.text for document in documents] == ["a", "b"] and problems == []
    assert documents[0].tags == {"format": "parquet", "line": "1", "n": "1", "when": '{"x": 1}'}


def test_a_broken_parquet_is_unreadable(source: MakeSource) -> None:
    documents, (problem,) = read(source("t.parquet", b"PAR1 nothing PAR1"))
    assert not documents and problem.kind == "unreadable"


def test_a_reader_called_with_a_source_alone_gives_documents(source: MakeSource) -> None:
    (document,) = find_reader("t.jsonl")(source("t.jsonl", b'{"text": "a"}'))
    assert document.text == "a"


def test_every_kind_of_problem_has_advice_and_survives_its_way_through_json() -> None:
    for kind in ProblemPolicy.model_fields:
        problem = Problem(kind, "f.jsonl", 3, "why", "refuse")
        assert Problem.from_json(problem.to_json()) == problem
        assert problem.to_error().where == "f.jsonl:3"
