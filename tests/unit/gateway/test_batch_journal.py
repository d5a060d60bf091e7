"""The journal: whatever a crash leaves of it, what was whole is kept, and what is added afterwards is whole, too."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import Conflict, DigestMismatch
from espalier.gateway.batch.journal import Entry, Journal, read_entry, write_entry

LINES = 12
HEAD = "batch_1 abc"

texts = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b" "))
entries = st.builds(
    Entry, st.sampled_from(["+", "-"]), st.integers(0, LINES - 1), texts, st.integers(0, 9), st.integers(0, 9)
)


def contents(journal: Journal) -> list[Entry | None]:
    return list(journal.entries())


@given(entries)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    assert read_entry(write_entry(entry)) == entry


@given(st.lists(entries, max_size=20), st.integers(0, 2000), st.binary(max_size=5), st.lists(entries, max_size=6))
def test_any_cut_resumes_with_what_was_whole(first: list[Entry], cut: int, rubbish: bytes, second: list[Entry]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal = Journal(path, LINES, HEAD)
        for entry in first:
            journal.add([entry])
        journal.close()
        whole = path.read_bytes()
        kept = whole[: max(0, len(whole) - cut)]
        path.write_bytes(kept + rubbish)  # the torn line of a crash, or what a power cut left there

        # An independent reading of what must survive: whole lines, the first of each number.
        expected: list[Entry | None] = [None] * LINES
        for raw in (kept + rubbish).split(b"\n")[:-1]:
            found = read_entry(raw)
            if found is not None and found.kind in "+-" and expected[found.line] is None:
                expected[found.line] = found

        for _ in range(2):  # once more: recovering changes nothing that was recovered
            journal = Journal(path, LINES, HEAD)
            assert contents(journal) == expected
            assert journal.counts.completed == sum(entry is not None and entry.kind == "+" for entry in expected)
            assert journal.counts.prompt_tokens == sum(entry.prompt_tokens for entry in expected if entry)
            assert list(journal.open_lines()) == [line for line, entry in enumerate(expected) if entry is None]
            journal.close()
        journal = Journal(path, LINES, HEAD)
        journal.add(second)
        for entry in second:
            expected[entry.line] = expected[entry.line] or entry
        assert contents(journal) == expected
        journal.close()
        journal = Journal(path, LINES, HEAD)
        assert contents(journal) == expected
        journal.close()


def test_a_line_is_done_once_and_the_first_answer_stands(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", 2, HEAD)
    journal.add([Entry("+", 0, b"first"), Entry("+", 0, b"second")])
    journal.add([Entry("-", 0, b"third")])
    assert contents(journal) == [Entry("+", 0, b"first"), None]
    assert (journal.counts.completed, journal.counts.failed) == (1, 0)
    journal.close()


def test_pins_and_the_check_s_end_are_remembered(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", 1, HEAD)
    journal.add([Entry("@", text=b'{"support":"model:support@v1"}'), Entry(".")])
    journal.close()
    again = Journal(tmp_path / "journal", 1, HEAD)
    assert (again.pins, again.checked) == ({"support": "model:support@v1"}, True)
    again.close()


def test_a_journal_damaged_anywhere_has_its_batch_checked_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", 1, HEAD)
    journal.add([Entry("@", text=b'{"support":"model:support@v1"}'), Entry("."), Entry("+", 0, b"an answer")])
    journal.close()
    data = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(data.replace(b"support@v1", b"support@v7"))
    again = Journal(tmp_path / "journal", 1, HEAD)
    assert (again.pins, again.checked, again.is_done(0)) == ({}, False, True)
    again.close()


def test_two_cannot_write_one_journal_and_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", 1, HEAD)
    with pytest.raises(Conflict):
        Journal(tmp_path / "journal", 1, HEAD)
    journal.close()
    Journal(tmp_path / "journal", 1, HEAD).close()


def test_another_batch_s_journal_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "journal", 1, HEAD).close()
    with pytest.raises(DigestMismatch):
        Journal(tmp_path / "journal", 1, "batch_2 abc")


def test_a_damaged_byte_under_way_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", 1, HEAD)
    journal.add([Entry("+", 0, b"an answer")])
    data = bytearray((tmp_path / "journal").read_bytes())
    data[-3] ^= 1
    (tmp_path / "journal").write_bytes(data)
    with pytest.raises(DigestMismatch):
        contents(journal)
    journal.close()
    again = Journal(tmp_path / "journal", 1, HEAD)  # it is not believed, and asked again
    assert contents(again) == [None]
    again.close()
