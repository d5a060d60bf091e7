"""A file that a client sends as `multipart/form-data`, put on disk as it comes. The parser is python-multipart's.

https://multipart.fastapiexpert.com/api/. One part has a file name, the others are short fields. Knows no OpenAI.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from espalier.core.errors import InvalidInput
from espalier.gateway.exchange import Exchange
from espalier.store.disk import storage_errors

_MOST_FIELDS = 16
_LONGEST_FIELD_BYTES = 4096
_ENVELOPE_BYTES = 1 << 16  # boundaries, headers and fields beside the file


@dataclass(slots=True)
class Upload:
    """What came: the fields, and the name of the file whose bytes are on disk now."""

    filename: str = ""
    size_bytes: int = 0
    fields: dict[str, str] = field(default_factory=dict)


async def receive_upload(exchange: Exchange, path: Path, most_bytes: int) -> Upload:
    """Write the one file of the request to `path`. Raises InvalidInput, StorageFull, Unavailable (it stops coming)."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(exchange.header(b"content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidInput("the body is not multipart/form-data", hint="send the file as the form field `file`")
    with storage_errors(path), path.open("wb") as stream:
        reader = _Reader(stream, most_bytes)
        try:
            parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
            async for chunk in exchange.chunks(most_bytes + _ENVELOPE_BYTES):
                await asyncio.to_thread(parser.write, chunk)
            parser.finalize()
        except FormParserError:
            raise InvalidInput("the form is not well-formed", hint="let an HTTP library write it") from None
    if not reader.upload.filename or not reader.ended:
        raise InvalidInput("no file was sent", where="file", hint="send it as the form field `file`")
    return reader.upload


class _Reader:
    """The parser's callbacks: which part this is, and where its bytes go."""

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        self.upload = Upload()
        self.ended = False
        self._stream, self._most_bytes = stream, most_bytes
        self._header, self._value = bytearray(), bytearray()
        self._name, self._is_file = "", False
        self._text = bytearray()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._take_header,
            "on_part_data": self._take,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._name, self._is_file = "", False
        self._text.clear()

    def _take_header(self) -> None:
        from python_multipart.multipart import parse_options_header

        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options:
                if self.upload.filename:
                    raise InvalidInput("more than one file was sent", where="file", hint="send one a request")
                self._is_file = True
                self.upload.filename = options[b"filename"].decode("utf-8", "replace") or "file"
        self._header.clear()
        self._value.clear()

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.upload.size_bytes += end - start
            if self.upload.size_bytes > self._most_bytes:
                raise InvalidInput(f"the file is larger than {self._most_bytes} bytes", where="file", hint="split it")
            self._stream.write(memoryview(data)[start:end])
        elif len(self._text) + end - start > _LONGEST_FIELD_BYTES:
            raise InvalidInput(f"field {self._name!r:.40} is too long", where=self._name[:64])
        else:
            self._text.extend(data[start:end])

    def _end(self) -> None:
        if not self._is_file and len(self.upload.fields) < _MOST_FIELDS:
            self.upload.fields[self._name] = self._text.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.ended = True
