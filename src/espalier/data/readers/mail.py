"""EML (RFC 5322, MIME) through the standard library: subject, best body, attachments. See `letters` for what becomes of
them."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage, MIMEPart
from email.utils import parsedate_to_datetime

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.letters import Letter, write_letter
from espalier.data.readers.plain import decode
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile


@versioned(2)
def read_eml(source: SourceFile) -> Iterator[Document]:
    """The mail, then a document (or more) for each attachment that has a reader."""
    message = email.message_from_bytes(source.read_bytes(), policy=email.policy.default)
    if not message.keys():
        raise InvalidInput("not a mail: no headers")
    letter = Letter(subject=_header(message, "Subject"), date=day_of(_header(message, "Date")))
    part = message.get_body(("plain", "html"))
    if part is not None:
        text = _decode_part(part)
        if part.get_content_subtype() == "html":
            letter.html = text
        else:
            letter.plain = text
    if message.is_multipart():
        letter.attachments = [_attachment(part) for part in message.iter_attachments()]
    yield from write_letter(source, letter)


def day_of(date: str) -> str:
    """The day of a mail's date header, ISO; empty when it is none."""
    try:
        return parsedate_to_datetime(date).date().isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""


def decode_as(data: bytes, charset: str | None) -> str:
    """Bytes by their declared charset, else as any text: what is declared may be unknown or untrue."""
    try:
        return data.decode(charset or "utf-8")
    except (LookupError, UnicodeDecodeError):
        return decode(data)


def _decode_part(part: MIMEPart) -> str:
    data = part.get_payload(decode=True)
    return decode_as(data if isinstance(data, bytes) else b"", part.get_content_charset())


def _attachment(part: MIMEPart) -> tuple[str, bytes]:
    name = part.get_filename() or ""
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload(0) if part.is_multipart() else None
        data = inner.as_bytes() if isinstance(inner, EmailMessage) else b""
        return (name if name.lower().endswith(".eml") else f"{name or 'message'}.eml"), data
    payload = part.get_payload(decode=True)
    return name, payload if isinstance(payload, bytes) else b""


def _header(message: EmailMessage, name: str) -> str:
    value = message.get(name)
    return " ".join(str(value).split()) if value is not None else ""
