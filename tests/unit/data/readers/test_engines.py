"""docling through a strict double of its documented interface, kreuzberg itself."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from espalier.core.errors import InvalidInput, MissingExtra
from espalier.data.readers.engines import read_with_docling, read_with_kreuzberg
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.plugin import find_reader
from espalier.data.readers.source import SourceFile
from espalier.data.synth.tickets.docx import Text, write_docx

MakeSource = Callable[[str, bytes], SourceFile]


class ConversionStatus(StrEnum):
    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    FAILURE = "failure"


class DocumentStream:
    def __init__(self, *, name: str, stream: io.BytesIO) -> None:
        assert "/" not in name and isinstance(stream, io.BytesIO)
        self.name, self.stream = name, stream


class DoclingDocument:
    def __init__(self, pages: dict[int, str]) -> None:
        self.pages = pages

    def export_to_markdown(self, *, page_no: int | None = None) -> str:
        return "\n\n".join(self.pages.values()) if page_no is None else self.pages[page_no]


class Double:
    """What the converter is to answer, and what it was asked."""

    def __init__(self) -> None:
        self.pages = {1: "# One", 3: "Three"}
        self.status = ConversionStatus.SUCCESS
        self.seen: list[tuple[str, bytes]] = []

    def convert(self, source: DocumentStream, *, raises_on_error: bool = True) -> SimpleNamespace:
        assert isinstance(source, DocumentStream) and raises_on_error is False
        self.seen.append((source.name, source.stream.read()))
        errors = [SimpleNamespace(error_message="no backend")] if self.status == "failure" else []
        return SimpleNamespace(status=self.status, errors=errors, document=DoclingDocument(self.pages))


@pytest.fixture
def docling(monkeypatch: pytest.MonkeyPatch) -> Double:
    double = Double()
    converter, models = ModuleType("docling.document_converter"), ModuleType("docling.datamodel.base_models")
    converter.DocumentConverter = lambda: double  # type: ignore[attr-defined]
    models.DocumentStream = DocumentStream  # type: ignore[attr-defined]
    for module in (ModuleType("docling"), converter, ModuleType("docling.datamodel"), models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return double


def test_docling_is_given_the_bytes_and_its_pages_become_pages(docling: Double, source: MakeSource) -> None:
    (document,) = read_with_docling(source("t.pdf", b"%PDF"))
    assert docling.seen == [("t.pdf", b"%PDF")]
    assert document.text == "# One\n\f\nThree" and [span.page for span in document.spans] == [1, 3]
    assert document.tags == {"reader": "docling"}


def test_a_document_without_pages_is_one_text(docling: Double, source: MakeSource) -> None:
    docling.pages = {1: "Text."}
    (document,) = read_with_docling(source("t.docx", b"PK"))
    assert document.text == "Text." and document.span.page == 1


def test_a_partial_result_is_kept_and_said_so(docling: Double, source: MakeSource) -> None:
    docling.status = ConversionStatus.PARTIAL_SUCCESS
    (document,) = read_with_docling(source("t.pdf", b"%PDF"))
    assert document.tags["docling.status"] == "partial_success"


def test_a_failure_is_a_reason(docling: Double, source: MakeSource) -> None:
    docling.status = ConversionStatus.FAILURE
    with pytest.raises(InvalidInput, match="docling could not read it: no backend"):
        list(read_with_docling(source("t.pdf", b"%PDF")))


@pytest.mark.parametrize(("reader", "module"), [(read_with_docling, "docling"), (read_with_kreuzberg, "kreuzberg")])
def test_an_absent_package_is_named_with_its_pip_line(
    source: MakeSource, monkeypatch: pytest.MonkeyPatch, reader: Callable[..., object], module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra) as refusal:
        list(reader(source("t.pdf", b"%PDF")))  # type: ignore[call-overload]
    assert refusal.value.hint == f'pip install "espalier[{module}]"'


def test_kreuzberg_reads_what_it_is_chosen_for(source: MakeSource) -> None:
    options = ReadOptions(engines=(("docx", "kreuzberg"),))
    reader = find_reader("t.docx", options)
    (document,) = reader(source("t.docx", write_docx([Text("A Wombat.", "Heading1"), Text("It digs.")])))
    assert "# A Wombat" in document.text and "It digs." in document.text
    assert document.tags == {"reader": "kreuzberg"} and not list(Path.cwd().glob(".kreuzberg*"))
