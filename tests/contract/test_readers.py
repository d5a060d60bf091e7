"""Every reader the product brings keeps the same promises, and each suffix it lists is tried."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import parquet

from espalier.data.readers.plugin import Reader, find_reader, known_suffixes
from espalier.testing.contracts.reader import ReaderContract, Sample
from espalier.testing.samples import document_samples

_LINES = b'{"text": "A Wombat."}\n{"text": "A bear.", "n": 2}\n'


def write_parquet(columns: dict[str, list[object]]) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


SAMPLES = document_samples() | {
    "csv": b'animal,note\nWombat,"two\nlines"\nBear,x\n',
    "json": b'[{"text": "A Wombat."}, {"text": "A bear.", "n": 2}]\n',
    "jsonl": _LINES,
    "ndjson": _LINES,
    "parquet": write_parquet({"text": ["A Wombat.", "A bear."], "n": [None, 2]}),
    "tsv": b"animal\tnote\nWombat\tx\n",
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
