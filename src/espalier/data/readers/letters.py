"""A mail as its readers see it, whatever its format: a text of subject and body, and a document for each attachment.

Quoted replies and signatures are left to cleaning. Sender and recipients are not put into the text. An attachment is
read by the reader of its own suffix, in memory; what cannot be read is named in a tag.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

from espalier.core.errors import EspalierError, NotFound
from espalier.core.types import Document
from espalier.data.readers.plain import read_text
from espalier.data.readers.plugin import find_reader
from espalier.data.readers.source import SourceFile, suffix_of
from espalier.data.readers.table import TableReader
from espalier.data.readers.tabletext import flatten
from espalier.data.readers.web import parse_html, visible_text

MAX_ATTACHMENTS = 200
MAX_DEPTH = 3
MAX_TAG_CHARS = 200


@dataclass(slots=True)
class Letter:
    """What a mail holds; `attachments` are names and bytes."""

    subject: str = ""
    plain: str = ""
    html: str = ""
    date: str = ""  # ISO, the day alone
    attachments: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HeldFile(SourceFile):
    """A file inside another, held in memory; its digest is that of the file around it."""

    data: bytes = b""

    @property
    def packing(self) -> str:
        return ""

    def read_bytes(self, max_bytes: int = 0) -> bytes:
        return self.data


def write_letter(source: SourceFile, letter: Letter) -> Iterator[Document]:
    """The mail's own document ("Subject: ...", an empty line, the body; plain text preferred to HTML), then its
    attachments', tagged `mail.attachment`."""
    attached, unread = _read_attachments(source, letter)
    body = letter.plain.replace("\r\n", "\n")
    if not body.strip() and letter.html.strip():
        body = visible_text(parse_html(letter.html))
    subject = flatten(letter.subject)
    text = f"Subject: {subject}\n\n{body}" if subject else body
    names = "; ".join(flatten(name) for name, _ in letter.attachments)
    tags = {
        "mail.subject": subject,
        "mail.date": letter.date,
        "mail.attachments": names[:MAX_TAG_CHARS],
        "mail.unread_attachments": "; ".join(unread)[:MAX_TAG_CHARS],
    }
    own = [Document("", text, source.span(end=len(text)), tags)] if text.strip() else []
    for number, document in enumerate([*own, *attached], 1):
        kept = {name: value for name, value in document.tags.items() if value}
        yield dataclasses.replace(document, id=source.document_id(number), tags=kept)


def _read_attachments(source: SourceFile, letter: Letter) -> tuple[list[Document], list[str]]:
    """The attachments' documents, and what could not be read: names with the reason."""
    documents: list[Document] = []
    unread: list[str] = []
    deep = source.uri.count("!/") >= MAX_DEPTH
    for number, (name, data) in enumerate(letter.attachments):
        name = flatten(name.replace("/", "_").replace("\\", "_")) or f"attachment {number + 1}"
        if deep or number >= MAX_ATTACHMENTS or not data:
            unread.append(name)
            continue
        held = HeldFile(source.path, f"{source.uri}!/{name}", source.sha256, data=data)
        try:
            reader = find_reader(name)
            read = list((read_text if isinstance(reader, TableReader) else reader)(held))
        except NotFound:
            unread.append(name)
            continue
        except EspalierError as error:
            unread.append(f"{name}: {error.message}")
            continue
        except Exception as error:  # noqa: BLE001 - a parser of foreign bytes; the mail itself is still read
            unread.append(f"{name}: {type(error).__name__}")
            continue
        for document in read:
            document.tags.setdefault("format", suffix_of(name))
            document.tags.setdefault("mail.attachment", name[:MAX_TAG_CHARS])
        documents += read
    return documents, unread
