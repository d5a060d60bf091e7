from __future__ import annotations

from collections.abc import Callable
from email.message import EmailMessage

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.readers.mail import read_eml
from espalier.data.readers.msg import read_msg, unpack_rtf
from espalier.data.readers.source import SourceFile
from espalier.data.synth.tickets.docx import Text, write_docx
from espalier.testing.files import write_compound, write_msg

MakeSource = Callable[[str, bytes], SourceFile]
SUBJECT, BODY, HTML, RTF, HEADERS, NAME, DATA = 0x37, 0x1000, 0x1013, 0x1009, 0x7D, 0x3707, 0x3701


def write_mail(body: str, **attachments: bytes) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "S"
    message.set_content(body)
    for name, data in attachments.items():
        message.add_attachment(data, maintype="application", subtype="octet-stream", filename=name.replace("_", "."))
    return message


def test_an_attachment_is_read_by_the_reader_of_its_suffix(source: MakeSource) -> None:
    message = write_mail("Hello.", note_docx=write_docx([Text("Inner", "Heading1")]), t_csv=b"a,b\n1,2\n")
    file = source("t.eml", bytes(message))
    mail, note, table = read_eml(file)
    assert mail.text == "Subject: S\n\nHello.\n" and mail.tags["mail.attachments"] == "note.docx; t.csv"
    assert note.text == "# Inner" and note.tags["mail.attachment"] == "note.docx" and note.tags["format"] == "docx"
    assert table.text == "a,b\n1,2\n"
    assert len({each.id for each in (mail, note, table)}) == 3
    assert note.span.blob == file.sha256 and note.span.uri == "t.eml!/note.docx"


def test_an_attachment_that_cannot_be_read_is_named_with_the_reason(source: MakeSource) -> None:
    (mail,) = read_eml(source("t.eml", bytes(write_mail("Hello.", broken_pdf=b"%PDF torn", x_qqq=b"?"))))
    assert mail.tags["mail.attachments"] == "broken.pdf; x.qqq"
    assert mail.tags["mail.unread_attachments"].startswith("broken.pdf: not a readable PDF")
    assert mail.tags["mail.unread_attachments"].endswith("x.qqq")


def test_a_mail_in_a_mail_is_read_but_not_without_end(source: MakeSource) -> None:
    message = write_mail("level 0")
    for level in range(1, 8):
        outer = write_mail(f"level {level}")
        outer.add_attachment(message)
        message = outer
    documents = list(read_eml(source("t.eml", bytes(message))))
    bodies = [document.text for document in documents]
    assert [f"level {level}" in body for level, body in zip((7, 6, 5, 4), bodies, strict=True)] == [True] * 4
    assert documents[-1].tags["mail.unread_attachments"] == "message.eml"


def test_a_path_in_an_attachments_name_is_only_a_name(source: MakeSource) -> None:
    message = write_mail("x")
    message.add_attachment(b"hi", maintype="text", subtype="plain", filename="../../etc/passwd.txt")
    _, inner = read_eml(source("t.eml", bytes(message)))
    assert inner.span.uri == "t.eml!/.._.._etc_passwd.txt"


def test_an_outlook_mail_gives_subject_day_body_and_attachments(source: MakeSource) -> None:
    attachment = {NAME: "big.txt", DATA: b"wombat " * 1000}
    data = write_msg({SUBJECT: "Sübject", BODY: "Body\r\ntext"}, [attachment], sent=133595712000000000)
    mail, big = read_msg(source("t.msg", data))
    assert mail.text == "Subject: Sübject\n\nBody\ntext"
    assert mail.tags == {"mail.subject": "Sübject", "mail.date": "2024-05-07", "mail.attachments": "big.txt"}
    assert big.text.count("wombat") == 1000


def test_a_mail_inside_an_outlook_mail_is_read(source: MakeSource) -> None:
    folder = "__attach_version1.0_#00000000/"
    inner = f"{folder}__substg1.0_3701000D/"
    streams = {
        "__properties_version1.0": bytes(32),
        "__substg1.0_1000001F": "outer".encode("utf-16-le"),
        f"{folder}__properties_version1.0": bytes(8),
        f"{inner}__properties_version1.0": bytes(24),
        f"{inner}__substg1.0_0037001F": "Inside".encode("utf-16-le"),
        f"{inner}__substg1.0_1000001F": "Hello from within.".encode("utf-16-le"),
    }
    outer, within = read_msg(source("t.msg", write_compound(streams)))
    assert outer.text == "outer" and outer.tags["mail.attachments"] == "message.txt"
    assert within.text == "Subject: Inside\n\nHello from within."


@pytest.mark.parametrize(
    ("properties", "body"),
    [
        ({HTML: b"<p>One</p><p>Two</p>"}, "One\n\nTwo"),
        ({HTML: "<p>Three</p>"}, "Three"),
        ({RTF: b"\x00\x00\x00\x00\x22\x00\x00\x00MELA\x00\x00\x00\x00{\\rtf1\\ansi Four\\par Five}    "}, "Four\nFive"),
    ],
)
def test_a_body_may_be_html_or_rtf(source: MakeSource, properties: dict[int, str | bytes], body: str) -> None:
    (mail,) = read_msg(source("t.msg", write_msg({SUBJECT: "S", **properties})))
    assert mail.text == f"Subject: S\n\n{body}"


def test_the_day_may_stand_in_the_transport_headers(source: MakeSource) -> None:
    headers = "From: a\r\nDate: Mon, 05 May 2025 10:00:00 +0200\r\n"
    (mail,) = read_msg(source("t.msg", write_msg({BODY: "x", HEADERS: headers})))
    assert mail.tags["mail.date"] == "2025-05-05"


def test_compressed_rtf_is_unpacked_as_the_specification_shows() -> None:
    # The two examples of MS-OXRTFCP: one plain, one whose reference overlaps what it writes.
    simple = b"-\x00\x00\x00+\x00\x00\x00LZFu\xf1\xc5\xc7\xa7"
    simple += b"\x03\x00\n\x00rcpg125B2\n\xf3 hel\t\x00 bw\x05\xb0ld}\n\x80\x0f\xa0"
    assert unpack_rtf(simple) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    crossing = b"\x1a\x00\x00\x00\x1c\x00\x00\x00LZFu\xe2\xd4KQA\x00\x04 WXYZ\rn}\x01\x0e\xb0"
    assert unpack_rtf(crossing) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"


@pytest.mark.parametrize("data", [b"short", b"\x00" * 8 + b"NOPE" + b"\x00" * 8])
def test_broken_compressed_rtf_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="compressed RTF"):
        unpack_rtf(data)


@pytest.mark.parametrize(
    "data", [b"no compound file", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), write_compound({"Other": b"x"})]
)
def test_what_is_no_outlook_mail_is_refused(source: MakeSource, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a readable MSG"):
        list(read_msg(source("t.msg", data)))
