"""The input: every line that holds something, by number; and names that are given twice."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from espalier.gateway.batch.source import Names, Source


@given(st.lists(st.binary(max_size=100).map(lambda raw: raw.replace(b"\n", b"x")), max_size=20), st.booleans())
def test_every_line_that_is_not_blank_is_there_in_order(lines: list[bytes], ends: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input"
        path.write_bytes(b"\n".join(lines) + (b"\n" if ends else b""))
        source = Source(path)
        expected = [line for line in lines if line.strip()]
        assert [source.read(number) for number in range(len(source))] == expected
        assert [source.size(number) for number in range(len(source))] == [len(line) for line in expected]
        source.close()


def test_an_empty_file_has_no_line(tmp_path: Path) -> None:
    for text in (b"", b"\n \n\t\r\n"):
        (tmp_path / "input").write_bytes(text)
        source = Source(tmp_path / "input")
        assert len(source) == 0
        source.close()


@given(st.lists(st.sampled_from("abcdefg"), max_size=30))
def test_names_given_twice_are_suspected_and_no_others(given_names: list[str]) -> None:
    names = Names()
    for number, name in enumerate(given_names):
        names.add(name, number)
    places = {name: [n for n, other in enumerate(given_names) if other == name] for name in given_names}
    expected = sorted(numbers for numbers in places.values() if len(numbers) > 1)
    assert sorted(names.suspects()) == expected
