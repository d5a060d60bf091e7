from __future__ import annotations

from collections.abc import Callable, Iterator
from email.message import EmailMessage

import pytest

from espalier.core.errors import InvalidInput, MissingExtra
from espalier.core.types import Document
from espalier.data.readers.mail import read_eml
from espalier.data.readers.plain import decode, read_text
from espalier.data.readers.plugin import known_suffixes, versioned
from espalier.data.readers.problem import Problem
from espalier.data.readers.reading import read_file, read_source
from espalier.data.readers.source import SourceFile
from espalier.data.readers.spec import SourceSpec
from espalier.data.synth.tickets.pdf import write_pdf

MakeSource = Callable[[str, bytes], SourceFile]


def test_every_suffix_of_the_product_has_a_reader() -> None:
    assert {"csv", "docx", "eml", "htm", "html", "jsonl", "md", "pdf", "txt"} <= known_suffixes()


# Mail


def write_mail(text: str = "", html: str = "", **headers: str) -> bytes:
    message = EmailMessage()
    for name, value in headers.items():
        message[name] = value
    if text:
        message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html") if text else message.set_content(html, subtype="html")
    return bytes(message)


def test_a_mail_gives_subject_and_plain_body_but_no_addresses(source: MakeSource) -> None:
    data = write_mail(
        "Hällo,\nit broke.\n",
        "<p>other</p>",
        Subject="Pump öff",
        From="Ann Bell <ann@example.org>",
        Date="Mon, 05 May 2025 10:00:00 +0200",
    )
    (document,) = read_eml(source("t.eml", data))
    assert document.text == "Subject: Pump öff\n\nHällo,\nit broke.\n"
    assert document.tags == {"mail.subject": "Pump öff", "mail.date": "2025-05-05"}


def test_a_mail_of_html_only_gives_its_text(source: MakeSource) -> None:
    (document,) = read_eml(source("t.eml", write_mail(html="<p>One</p><p>Two</p>", Subject="S")))
    assert document.text == "Subject: S\n\nOne\n\nTwo"


def test_a_mail_with_an_unknown_charset_is_still_read(source: MakeSource) -> None:
    data = b"Subject: S\nContent-Type: text/plain; charset=klingon-8\n\nHello there\n"
    (document,) = read_eml(source("t.eml", data))
    assert "Hello there" in document.text


def test_bytes_without_headers_are_no_mail(source: MakeSource) -> None:
    with pytest.raises(InvalidInput, match="not a mail"):
        list(read_eml(source("t.eml", b"\njust text\n")))


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_text_is_read_in_its_encoding(encoding: str) -> None:
    text = "Die Größe der Übertragung genügt für die Prüfung, schrieb Frau Müller über den Gerätefehler."
    assert decode(text.encode(encoding)) == text


def test_binary_bytes_are_refused_as_text(source: MakeSource) -> None:
    with pytest.raises(InvalidInput, match="binary"):
        list(read_text(source("t.txt", b"ab\x00cd")))


# All together


def test_one_corrupt_file_among_good_ones_is_reported_and_skipped(source: MakeSource) -> None:
    files = [
        source("a.pdf", write_pdf([["Good."]])),
        source("b.pdf", b"%PDF-1.7 torn off"),
        source("c.md", b"# Also good"),
    ]
    read = [read_file(file) for file in files]
    assert [[document.tags["format"] for document in documents] for documents, _ in read] == [["pdf"], [], ["md"]]
    reasons = [reason for _, reason in read]
    assert reasons[0] == reasons[2] == "" and reasons[1].startswith("unreadable: not a readable PDF")


def test_a_missing_package_is_no_property_of_the_file(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(file: SourceFile) -> Iterator[Document]:
        raise MissingExtra("pdf needs a package", hint="pip install it")
        yield

    monkeypatch.setattr(
        "espalier.data.readers.reading.find_reader", lambda uri, options: versioned(1, trusted=True)(read)
    )
    with pytest.raises(MissingExtra):
        read_file(source("a.pdf", b"x"))


def test_an_unforeseen_error_of_a_reader_skips_its_file_only(
    source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(file: SourceFile) -> Iterator[Document]:
        if file.uri == "a.txt":
            raise AttributeError("a bug in a parser")
        yield Document(file.document_id(1), "fine", file.span())

    monkeypatch.setattr(
        "espalier.data.readers.reading.find_reader", lambda uri, options: versioned(1, trusted=True)(read)
    )
    assert read_file(source("a.txt", b"x")) == ([], "unreadable: AttributeError: a bug in a parser")
    documents, reason = read_file(source("b.txt", b"y"))
    assert [document.text for document in documents] == ["fine"] and not reason


def test_a_corrupt_file_stops_the_reading_when_asked_to(source: MakeSource) -> None:
    options = SourceSpec(on_error="fail").options()
    (problem,) = read_source(source("b.pdf", b"%PDF-1.7 torn off"), options)
    assert isinstance(problem, Problem) and problem.action == "refuse"
    error = problem.to_error()
    assert error.where == "b.pdf" and "source.problems: {unreadable: skip}" in error.hint
