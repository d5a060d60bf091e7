"""OpenAI's HTTP routes of files and batches, so that its own client uploads, waits and fetches.

    POST GET /v1/files        GET DELETE /v1/files/{id}        GET /v1/files/{id}/content
    POST GET /v1/batches      GET /v1/batches/{id}             POST /v1/batches/{id}/cancel

What a key makes is its payer's: another's key is told that there is no such file or batch. Knows HTTP and OpenAI's
shapes; what a batch is, `records` knows.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, ValidationError

from espalier.core.config import BatchConfig
from espalier.core.errors import InvalidInput
from espalier.core.faults import list_faults
from espalier.core.types import Usage
from espalier.gateway.batch.files import Files, StoredFile
from espalier.gateway.batch.records import Batches, Standing
from espalier.gateway.batch.upload import receive_upload
from espalier.gateway.exchange import Exchange, Scope
from espalier.gateway.keys import ApiKey
from espalier.store.store import Store
from espalier.wire.jsonbody import read_json
from espalier.wire.openai import batch as wire
from espalier.wire.openai.failure import encode_fault

Authenticate = Callable[[Exchange], Awaitable[ApiKey | None]]
OffLoop = Callable[..., Awaitable[Any]]
Model = TypeVar("Model", bound=BaseModel)

_FILES, _BATCHES = "/v1/files", "/v1/batches"
_MOST_BODY_BYTES = 1 << 16
_MOST_FILES, _MOST_BATCHES, _BATCHES_A_PAGE = 10_000, 100, 20  # of a page, as OpenAI documents them
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512


class _CreateBatch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


class BatchRoutes:
    """Answers OpenAI's paths; blocking work is done by `off_loop`."""

    name = "batches"

    def __init__(self, store: Store, config: BatchConfig, off_loop: OffLoop) -> None:
        self._files, self._batches = Files(store), Batches(store)
        self._config = config
        self._off_loop = off_loop
        self._scratch = store.workspace.folder / "uploads"

    def owns(self, path: str) -> bool:
        """Whether a path is answered here."""
        return any(path == root or path.startswith(root + "/") for root in (_FILES, _BATCHES))

    async def answer(self, scope: Scope, exchange: Exchange, authenticate: Authenticate) -> None:
        """One request. Raises EspalierError for what it refuses."""
        key = await authenticate(exchange)
        method, parts = scope["method"], scope["path"].strip("/").split("/")[1:]
        query = {
            name: values[-1] for name, values in parse_qs(scope.get("query_string", b"").decode("latin-1")).items()
        }
        match (method, *parts):
            case ("POST", "files"):
                await self._upload(exchange, key)
            case ("GET", "files"):
                await self._list_files(exchange, key, query)
            case ("GET", "files", id):
                await exchange.send_json(200, _file(await self._off_loop(self._files.get, id, _owner(key))))
            case ("DELETE", "files", id):
                await self._off_loop(self._files.delete, id, _owner(key))
                await exchange.send_json(200, {"id": id, "object": "file", "deleted": True})
            case ("GET", "files", id, "content"):
                await self._send_content(exchange, id, key)
            case ("POST", "batches"):
                await self._create(exchange, key)
            case ("GET", "batches"):
                await self._list_batches(exchange, key, query)
            case ("GET", "batches", id):
                await exchange.send_json(200, encode(await self._off_loop(self._batches.get, id, _owner(key))))
            case ("POST", "batches", id, "cancel"):
                await exchange.send_json(200, encode(await self._off_loop(self._batches.cancel, id, _owner(key))))
            case _:
                fault = encode_fault(f"no route {method} {scope['path']}"[:200], "invalid_request_error", "unknown_url")
                await exchange.send_bytes(404, fault)

    async def _upload(self, exchange: Exchange, key: ApiKey | None) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=self._scratch)
        os.close(descriptor)
        try:
            upload = await receive_upload(exchange, Path(path), self._config.max_file_bytes)
            purpose = upload.fields.get("purpose")
            if purpose != "batch":
                raise InvalidInput(f"purpose is {purpose!r:.40}", where="purpose", hint="files are for `batch` here")
            file = await self._off_loop(self._files.add, Path(path), upload.filename, "batch", _owner(key))
        finally:
            Path(path).unlink(missing_ok=True)
        await exchange.send_json(200, _file(file))

    async def _list_files(self, exchange: Exchange, key: ApiKey | None, query: dict[str, str]) -> None:
        limit, oldest_first = _limit(query, _MOST_FILES, _MOST_FILES), _is_oldest_first(query)

        def find() -> Sequence[StoredFile]:
            after, purpose = query.get("after", ""), query.get("purpose", "")
            return self._files.list(
                _owner(key), limit=limit + 1, after=after, purpose=purpose, oldest_first=oldest_first
            )  # fmt: skip

        found = await self._off_loop(find)
        page = wire.encode_page([_file(file) for file in found[:limit]], has_more=len(found) > limit)
        await exchange.send_json(200, page)

    async def _send_content(self, exchange: Exchange, id: str, key: ApiKey | None) -> None:
        file: StoredFile = await self._off_loop(self._files.get, id, _owner(key))
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            path = Path(folder) / "content"
            await self._off_loop(self._files.fetch, file, path)
            await exchange.send_file(path, b"application/jsonl")

    async def _create(self, exchange: Exchange, key: ApiKey | None) -> None:
        asked = _read(await exchange.body(_MOST_BODY_BYTES), _CreateBatch)
        if asked.endpoint != wire.CHAT:
            raise InvalidInput(f"endpoint is {asked.endpoint!r:.80}", where="endpoint", hint=f"the one is {wire.CHAT}")
        _check_metadata(asked.metadata or {})

        def create() -> Standing:
            file = self._files.get(asked.input_file_id, _owner(key))
            if file.purpose != "batch":
                raise InvalidInput("this file is a batch's result", where="input_file_id", hint="upload it anew")
            made = self._batches.create(
                "openai",
                file.name,
                file.sha256,
                file.size_bytes,
                input_file=file.id,
                key=key,
                actor=key.actor if key else "local",
                window=asked.completion_window,
                metadata=asked.metadata,
            )
            return self._batches.get(made.id)

        await exchange.send_json(200, encode(await self._off_loop(create)))

    async def _list_batches(self, exchange: Exchange, key: ApiKey | None, query: dict[str, str]) -> None:
        limit, oldest_first = _limit(query, _BATCHES_A_PAGE, _MOST_BATCHES), _is_oldest_first(query)

        def find() -> Sequence[Standing]:
            after = query.get("after", "")
            return self._batches.list(_owner(key), limit=limit + 1, after=after, oldest_first=oldest_first)

        found = await self._off_loop(find)
        page = wire.encode_page([encode(one) for one in found[:limit]], has_more=len(found) > limit)
        await exchange.send_json(200, page)


def encode(standing: Standing) -> dict[str, Any]:
    """A batch in OpenAI's shape."""
    batch, end, progress = standing.batch, standing.end, standing.progress
    counts = end or progress
    fields = wire.BatchFields(
        id=batch.id,
        status=standing.status,
        input_file=batch.input_file,
        window=batch.window,
        created_ms=batch.created_ms,
        expires_ms=batch.expires_ms,
        model=batch.model,
        output_file=end.output_file if end else "",
        error_file=end.error_file if end else "",
        total=counts.total if counts else 0,
        completed=counts.completed if counts else 0,
        failed=counts.failed if counts else 0,
        usage=Usage(prompt_tokens=counts.prompt_tokens, completion_tokens=counts.completion_tokens) if counts else None,
        started_ms=standing.started_ms,
        finalizing_ms=counts.finalizing_ms if counts else 0,
        cancelling_ms=standing.cancelling_ms,
        ended_ms=end.ended_ms if end else 0,
        fault_code=end.fault_code if end else "",
        fault=end.fault if end else "",
        metadata=batch.metadata,
    )
    return wire.encode_batch(fields)


def _file(file: StoredFile) -> dict[str, Any]:
    return wire.encode_file(file.id, file.name, file.purpose, file.size_bytes, file.created_ms)


def _owner(key: ApiKey | None) -> str:
    return key.payer if key else ""


def _read(body: bytes, kind: type[Model]) -> Model:
    fields = read_json(body, hint="send a JSON object with `input_file_id`")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        fault = list_faults(error, fields, kind)[0]
        where = ".".join(map(str, fault.place))[:64]
        raise InvalidInput(fault.tell("the body")[:300], where=where, hint=fault.hint[:300]) from None


def _limit(query: dict[str, str], usual: int, most: int) -> int:
    text = query.get("limit", str(usual))
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 0 < int(text) <= most:
        raise InvalidInput(f"limit is {text!r:.40}", where="limit", hint=f"1 to {most:,}")
    return int(text)


def _is_oldest_first(query: dict[str, str]) -> bool:
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidInput(f"order is {order!r:.40}", where="order", hint="asc or desc")
    return order == "asc"


def _check_metadata(pairs: dict[str, str]) -> None:
    long = any(len(key) > _LONGEST_KEY or len(value) > _LONGEST_VALUE for key, value in pairs.items())
    if len(pairs) > _MOST_PAIRS or long:
        raise InvalidInput(
            "metadata is too large",
            where="metadata",
            hint=f"{_MOST_PAIRS} pairs of {_LONGEST_KEY} and {_LONGEST_VALUE} characters",
        )
