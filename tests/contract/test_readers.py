"""Every reader the product brings keeps the same promises, and each suffix it lists is tried."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import parquet

from espalier.data.readers.reading import Reader, find_reader, known_suffixes
from espalier.data.synth.tickets.docx import Table, Text, write_docx
from espalier.data.synth.tickets.pdf import write_pdf
from espalier.testing.contracts.reader import ReaderContract, Sample

_HTML = b"<html><title>T</title><body><main><p>A Wombat.</p><table><tr><th>a<td>b</table></main></body></html>"
_LINES = b'{"text": "A Wombat."}\n{"text": "A bear.", "n": 2}\n'


def write_parquet(columns: dict[str, list[object]]) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


SAMPLES = {
    "csv": b'animal,note\nWombat,"two\nlines"\nBear,x\n',
    "docx": write_docx([Text("A Wombat."), Table((("a", "b"), ("c", "d")))]),
    "eml": b"Subject: Wombat\nContent-Type: text/plain; charset=utf-8\n\nIt dug a hole.\n",
    "htm": _HTML,
    "html": _HTML,
    "json": b'[{"text": "A Wombat."}, {"text": "A bear.", "n": 2}]\n',
    "jsonl": _LINES,
    "md": "# Wombat\n\nÜber Höhlen.\n".encode(),
    "ndjson": _LINES,
    "parquet": write_parquet({"text": ["A Wombat.", "A bear."], "n": [None, 2]}),
    "pdf": write_pdf([["A Wombat."], ["On page two."]]),
    "tsv": b"animal\tnote\nWombat\tx\n",
    "txt": "Wombat und Bär".encode("cp1252"),
}


def test_every_suffix_has_a_sample() -> None:
    assert known_suffixes() == set(SAMPLES)


@pytest.mark.parametrize("suffix", sorted(SAMPLES), scope="class")
class TestOurReaders(ReaderContract):
    @pytest.fixture
    def read(self, suffix: str) -> Reader:
        return find_reader(f"file.{suffix}")

    @pytest.fixture
    def sample(self, suffix: str) -> Sample:
        return f"file.{suffix}", SAMPLES[suffix]
