"""Good files with bytes changed, cut, doubled or left out: read, or refused with a reason, and nothing else."""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espalier.data.readers.options import ReadOptions
from espalier.data.readers.reading import read_file
from espalier.data.readers.source import SourceFile
from espalier.testing.samples import document_samples

SAMPLES = document_samples()
# Of suffixes that share a reader one is enough.
SUFFIXES = [
    *("docx", "eml", "epub", "html", "ipynb", "md", "msg", "odp", "ods", "odt", "pdf", "pptx", "py", "rst", "rtf"),
    *("txt", "xls", "xlsx", "xml"),
]
PACKAGES = ["docx", "epub", "odp", "ods", "odt", "pptx", "xlsx"]
HERE = ReadOptions(sandbox=False)  # in this process, where an exception or a crash would be seen

# Where (as a share of the length), how much, and what is put there instead.
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12))
# What means something in markup, so that a change is more than noise.
TOKEN = st.sampled_from(
    [b"<", b">", b"</", b'"', b"&x;", b"\x00", b"9999999999", b"-1", b"]]>", b"{", b"\\", b"\xff\xfe"]
)
EDITS = st.lists(EDIT | st.tuples(st.floats(0, 1), st.integers(0, 40), TOKEN), min_size=1, max_size=4)
KEEP_ALL = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def change(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for where, length, instead in edits:
        at = int(where * len(data))
        data = data[:at] + instead + data[at + length :]
    return data


def check(suffix: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"f.{suffix}")
        path.write_bytes(data)
        documents, reason = read_file(SourceFile(path, path.name, hashlib.sha256(data).hexdigest()), HERE)
        assert [each.name for each in Path(folder).iterdir()] == [path.name]
    assert reason.startswith("unreadable: ") or documents
    # An exception of a foreign parser is caught one level up: our own readers know what their formats can do to them.
    assert not reason.startswith(("unreadable: AttributeError", "unreadable: KeyError", "unreadable: TypeError"))
    for document in documents:
        assert document.text.strip() and all(isinstance(value, str) and value for value in document.tags.values())
        document.text.encode("utf-8")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_sample_itself_is_read(suffix: str) -> None:
    check(suffix, SAMPLES[suffix])


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(edits=EDITS)
@KEEP_ALL
def test_a_changed_file_is_read_or_refused(suffix: str, edits: list[tuple[float, int, bytes]]) -> None:
    check(suffix, change(SAMPLES[suffix], edits))


@pytest.mark.parametrize("suffix", PACKAGES)
@given(edits=EDITS, which=st.integers(0, 20))
@KEEP_ALL
def test_a_package_with_a_changed_part_is_read_or_refused(
    suffix: str, edits: list[tuple[float, int, bytes]], which: int
) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(SAMPLES[suffix])) as old, zipfile.ZipFile(stream, "w") as new:
        names = old.namelist()
        for name in names:
            data = old.read(name)
            new.writestr(name, change(data, edits) if name == names[which % len(names)] else data)
    check(suffix, stream.getvalue())
