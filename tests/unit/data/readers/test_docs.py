"""What docs/reading.md says is so: its examples run, and every suffix stands in its table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from espalier.data.readers.plugin import known_suffixes
from espalier.data.readers.sandbox import close_sandbox
from espalier.data.readers.source import SourceFile
from espalier.data.synth.tickets.pdf import write_pdf

PAGE = (Path(__file__).parents[4] / "docs" / "reading.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_suffix_stands_on_the_page_or_is_source_code() -> None:
    from espalier.data.readers.code import LANGUAGES

    named = set(re.findall(r"[a-z0-9]+", " ".join(re.findall(r"^\| ([^|]*) \|", PAGE, re.MULTILINE))))
    assert known_suffixes() - set(LANGUAGES) - named - {"ndjson"} == set()


def test_the_example_of_reading_a_file_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("report.pdf").write_bytes(write_pdf([["A Wombat."]]))
    try:
        exec(compile(EXAMPLES[0], "docs/reading.md", "exec"), {})
    finally:
        close_sandbox()
    assert "A Wombat." in capsys.readouterr().out


def test_the_example_of_a_reader_reads(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[1], "docs/reading.md", "exec"), names)
    path = tmp_path / "t.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n")
    (document,) = names["read_srt"](SourceFile(path, "t.srt", "0" * 64))
    assert document.text == "Hello."
