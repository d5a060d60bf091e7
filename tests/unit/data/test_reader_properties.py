"""Readers against whatever bytes there are: they read or refuse, and what they write back is what went in."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.data.readers.reading import read_file
from espalier.data.readers.source import SourceFile

# What survives a mail's or a CSV's line ends: no control characters, no other Unicode line breaks.
PRINTABLE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60)
CELL = PRINTABLE.map(str.strip)


def source_of(name: str, data: bytes, folder: str) -> SourceFile:
    path = Path(folder, name)
    path.write_bytes(data)
    return SourceFile(path, name, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    "suffix", ["csv", "tsv", "jsonl", "json", "parquet", "eml", "html", "md", "txt", "docx", "pdf"]
)
@given(data=st.binary(max_size=300))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_bytes_are_read_or_refused_with_a_reason(suffix: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        documents, reason = read_file(source_of(f"f.{suffix}", data, folder))
    assert reason.startswith("unreadable: ") or documents
    assert all(document.text or document.dropped_because for document in documents)


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_csv_gives_back_the_cells_that_were_written(rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("left", "right"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        documents, _ = read_file(source_of("f.csv", stream.getvalue().encode(), folder))
    filled = [row for row in rows if any(row)]
    expected = ["\n".join(f"{n}: {v}" for n, v in zip(("left", "right"), row, strict=True) if v) for row in filled]
    assert [document.text for document in documents] == expected


@given(
    texts=st.lists(
        st.text(st.characters(min_codepoint=1, exclude_categories=("Cs",)), min_size=1, max_size=60),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_json_lines_give_back_the_texts_that_were_written_each_with_its_line(texts: list[str]) -> None:
    data = "\n".join(json.dumps({"text": text}) for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        documents, _ = read_file(source_of("f.jsonl", data.encode(), folder))
    assert [document.text for document in documents] == texts
    assert [document.tags["line"] for document in documents] == [str(n) for n in range(1, len(texts) + 1)]
    lines = data.split("\n")
    spans = [data[document.span.start : document.span.end].rstrip("\n") for document in documents]
    assert spans == lines


@given(subject=CELL, body=st.lists(CELL, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_mail_gives_back_its_subject_and_body(subject: str, body: list[str]) -> None:
    message = EmailMessage()
    message["Subject"] = subject
    message.set_content("\n".join(body))
    with tempfile.TemporaryDirectory() as folder:
        documents, _ = read_file(source_of("f.eml", bytes(message), folder))
    if any(body):
        assert "".join("\n".join(body).split()) in "".join(documents[0].text.split())
    if subject.isascii() and subject.split():
        assert " ".join(subject.split()) in documents[0].text
