"""EML through the standard library: subject and best body. Quoted replies and signatures are left to cleaning.

Sender and recipients are not put into the text; attachments are counted, not read.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage
from email.utils import parsedate_to_datetime

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.plain import decode
from espalier.data.readers.source import SourceFile
from espalier.data.readers.web import parse_html, visible_text


def read_eml(source: SourceFile) -> Iterator[Document]:
    """One document: "Subject: ...", an empty line, the body (plain text preferred to HTML)."""
    message = email.message_from_bytes(source.path.read_bytes(), policy=email.policy.default)
    if not message.keys():
        raise InvalidInput("not a mail: no headers")
    subject = _header(message, "Subject")
    body = _body(message)
    text = f"Subject: {subject}\n\n{body}" if subject else body
    if not text.strip():
        return
    tags = {"mail.subject": subject, "mail.date": _date(message), "mail.attachments": _count_attachments(message)}
    kept = {name: value for name, value in tags.items() if value}
    yield Document(source.document_id(1), text, source.span(end=len(text)), kept)


def _body(message: EmailMessage) -> str:
    part = message.get_body(("plain", "html"))
    if part is None:
        return ""
    data = part.get_payload(decode=True)
    text = _decode_part(data if isinstance(data, bytes) else b"", part.get_content_charset())
    text = text.replace("\r\n", "\n")
    if part.get_content_subtype() == "html" and text.strip():
        return visible_text(parse_html(text))
    return text


def _decode_part(data: bytes, charset: str | None) -> str:
    try:
        return data.decode(charset or "utf-8")
    except (LookupError, UnicodeDecodeError):
        return decode(data)  # the declared charset is unknown or untrue


def _header(message: EmailMessage, name: str) -> str:
    value = message.get(name)
    return " ".join(str(value).split()) if value is not None else ""


def _date(message: EmailMessage) -> str:
    try:
        return parsedate_to_datetime(_header(message, "Date")).date().isoformat()
    except (ValueError, TypeError):
        return ""


def _count_attachments(message: EmailMessage) -> str:
    count = sum(1 for _ in message.iter_attachments()) if message.is_multipart() else 0
    return str(count) if count else ""
