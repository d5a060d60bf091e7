"""Every reader the product brings keeps the same promises, and each suffix it lists is tried."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import parquet

from espalier.data.readers.code import LANGUAGES
from espalier.data.readers.reading import Reader, find_reader, known_suffixes
from espalier.data.synth.tickets.docx import Table, Text, write_docx
from espalier.data.synth.tickets.pdf import write_pdf
from espalier.testing import files
from espalier.testing.contracts.reader import ReaderContract, Sample

_HTML = b"<html><title>T</title><body><main><p>A Wombat.</p><table><tr><th>a<td>b</table></main></body></html>"
_LINES = b'{"text": "A Wombat."}\n{"text": "A bear.", "n": 2}\n'


def write_parquet(columns: dict[str, list[object]]) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


_ROWS = [["animal", "note"], ["Wombat", "digs"]]
_ODT = files.write_odf("text", "<text:p>A Wombat.</text:p>")
_ODS_ROW = "<table:table-row><table:table-cell><text:p>Wombat</text:p></table:table-cell></table:table-row>"
_ODP = "<draw:page><draw:frame><draw:text-box><text:p>Wombat</text:p></draw:text-box></draw:frame></draw:page>"
_PPTX = files.write_pptx([files.slide_text("A Wombat.", kind="title"), files.slide_text("digs", "sleeps", kind="body")])
_DOCX = write_docx([Text("A Wombat."), Table((("a", "b"), ("c", "d")))])
SAMPLES = dict.fromkeys(LANGUAGES, b"wombat = 'Wombat'  # digs\n") | {
    "csv": b'animal,note\nWombat,"two\nlines"\nBear,x\n',
    "docm": _DOCX,
    "docx": _DOCX,
    "eml": b"Subject: Wombat\nContent-Type: text/plain; charset=utf-8\n\nIt dug a hole.\n",
    "epub": files.write_epub(["<h1>Wombat</h1><p>It digs.</p>"], "<dc:title>Animals</dc:title>"),
    "htm": _HTML,
    "html": _HTML,
    "ipynb": files.write_notebook([{"cell_type": "markdown", "source": "# Wombat"}]),
    "json": b'[{"text": "A Wombat."}, {"text": "A bear.", "n": 2}]\n',
    "jsonl": _LINES,
    "markdown": "# Wombat\n\nÜber Höhlen.\n".encode(),
    "md": "# Wombat\n\nÜber Höhlen.\n".encode(),
    "msg": files.write_msg({0x37: "Wombat", 0x1000: "It digs."}, [{0x3707: "a.txt", 0x3701: b"hole"}]),
    "ndjson": _LINES,
    "odp": files.write_odf("presentation", _ODP),
    "ods": files.write_odf("spreadsheet", f'<table:table table:name="S">{_ODS_ROW}</table:table>'),
    "odt": _ODT,
    "parquet": write_parquet({"text": ["A Wombat.", "A bear."], "n": [None, 2]}),
    "pdf": write_pdf([["A Wombat."], ["On page two."]]),
    "pptm": _PPTX,
    "pptx": _PPTX,
    "rst": b"Wombat\n======\n\nIt digs.\n",
    "rtf": rb"{\rtf1\ansi A Wombat.\par}",
    "tsv": b"animal\tnote\nWombat\tx\n",
    "txt": "Wombat und Bär".encode("cp1252"),
    "xhtml": _HTML,
    "xls": files.write_xls(_ROWS),
    "xlsm": files.write_xlsx({"S": _ROWS}),
    "xlsx": files.write_xlsx({"S": _ROWS}),
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
