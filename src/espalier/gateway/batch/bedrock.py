"""Bedrock's HTTP routes of model invocation jobs, with an API key as the bearer.

    POST /model-invocation-job              GET /model-invocation-job/{id or ARN}
    GET  /model-invocation-jobs             POST /model-invocation-job/{id or ARN}/stop

What `s3://NAME/...` means, `batch.buckets` says: a folder of the workspace, or the real bucket of that name. A bucket
that is not listed is refused, since the server would reach it with credentials of its own. Knows HTTP and Bedrock's
shapes; what a batch is, `records` knows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from espalier.core.config import BatchConfig
from espalier.core.errors import EspalierError, InvalidInput, NotFound, PermissionDenied
from espalier.gateway.batch.deliver import open_s3
from espalier.gateway.batch.records import Batch, Batches, Standing, Token
from espalier.gateway.batch.routes import Authenticate, OffLoop
from espalier.gateway.exchange import Exchange, Scope
from espalier.gateway.keys import ApiKey
from espalier.store.store import Store
from espalier.wire.bedrock.failure import encode_error
from espalier.wire.bedrock.job import CreateJob, JobFields, arn_of, decode_create, encode_job, id_of

_JOB, _JOBS = "/model-invocation-job", "/model-invocation-jobs"
_MOST_BODY_BYTES = 1 << 16
_LOOK_BACK = 1000  # jobs of which a list is made
_REAL = "s3"


class BedrockRoutes:
    """Answers Bedrock's paths; blocking work is done by `off_loop`."""

    name = "invocation-jobs"

    def __init__(self, store: Store, config: BatchConfig, off_loop: OffLoop) -> None:
        self._store, self._batches = store, Batches(store)
        self._config = config
        self._off_loop = off_loop

    def owns(self, path: str) -> bool:
        """Whether a path is answered here."""
        return path in (_JOB, _JOBS) or path.startswith(_JOB + "/")

    async def answer(self, scope: Scope, exchange: Exchange, authenticate: Authenticate) -> None:
        """One request; what it is refused for is told in AWS' shape."""
        try:
            key = await authenticate(exchange)
            await exchange.send_json(200, await self._perform(scope, exchange, key))
        except EspalierError as error:
            status, name, body = encode_error(error)
            exchange.extra.append((b"x-amzn-errortype", name.encode()))
            await exchange.send_bytes(status, body)

    async def _perform(self, scope: Scope, exchange: Exchange, key: ApiKey | None) -> dict[str, Any]:
        # The raw path: an ARN arrives with its slash encoded, and must not be split at it.
        raw = scope.get("raw_path") or scope["path"].encode()
        parts = raw.partition(b"?")[0].decode("latin-1").strip("/").split("/")
        owner = key.payer if key else ""
        match (scope["method"], *parts):
            case ("POST", "model-invocation-job"):
                asked = decode_create(await exchange.body(_MOST_BODY_BYTES))
                made: Batch = await self._off_loop(self._create, asked, key)
                return {"jobArn": arn_of(made.id)}
            case ("GET", "model-invocation-jobs"):
                query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
                return {"invocationJobSummaries": await self._off_loop(self._list, owner, query)}
            case ("GET", "model-invocation-job", *rest) if rest:
                return encode_job(_fields(await self._off_loop(self._get, "/".join(rest), owner)))
            case ("POST", "model-invocation-job", *rest, "stop") if rest:
                standing = await self._off_loop(self._get, "/".join(rest), owner)
                await self._off_loop(self._batches.cancel, standing.batch.id, owner)
                return {}
        raise NotFound(f"no route {scope['method']} {scope['path']}"[:200])

    def _create(self, asked: CreateJob, key: ApiKey | None) -> Batch:
        owner = key.payer if key else ""
        token = Token(asked.clientRequestToken, asked.digest) if asked.clientRequestToken else None
        made = self._batches.find_made(token, owner) if token else None
        if made is not None:  # also where the input has gone meanwhile
            return made
        name = asked.source.rpartition("/")[2]
        if not name.endswith(".jsonl"):
            raise InvalidInput(f"{asked.source} is no .jsonl file", where="inputDataConfig", hint="name one file")
        destination = self._place(asked.destination)
        sha256, size_bytes = self._take_in(asked.source)
        return self._batches.create(
            "converse" if asked.modelInvocationType == "Converse" else "invoke",
            name,
            sha256,
            size_bytes,
            model=asked.modelId,
            key=key,
            actor=key.actor if key else "local",
            window=f"{asked.timeoutDurationInHours}h",
            metadata={
                "jobName": asked.jobName,
                "roleArn": asked.roleArn,
                "clientRequestToken": asked.clientRequestToken,
                "source": asked.source,
                "destination": asked.destination,
            },
            destination=destination,
            token=token,
        )

    def _get(self, identifier: str, owner: str) -> Standing:
        standing = self._batches.get(id_of(unquote(identifier)), owner)
        if standing.batch.shape == "openai":
            raise NotFound(f"no model invocation job {unquote(identifier)!r:.100}")
        return standing

    def _list(self, owner: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        status, text = query.get("statusEquals", [""])[-1], query.get("nameContains", [""])[-1]
        limit = query.get("maxResults", ["100"])[-1]
        if not limit.isascii() or not limit.isdigit():
            raise InvalidInput(f"maxResults is {limit!r:.40}", where="maxResults")
        known = self._batches.list(owner, limit=_LOOK_BACK)
        jobs = [encode_job(_fields(standing)) for standing in known if standing.batch.shape != "openai"]
        wanted = [job for job in jobs if text in job["jobName"] and status in ("", job["status"])]
        return wanted[: int(limit[:6])]

    def _take_in(self, uri: str) -> tuple[str, int]:
        place = self._place(uri)
        if not place.startswith("s3://"):
            if not Path(place).is_file():
                raise NotFound(f"no object {uri}", hint="put the file into the folder that batch.buckets names")
            self._check_size(uri, Path(place).stat().st_size)
            return self._store.blobs.put_file(Path(place))
        client, bucket, name = open_s3(place)
        with tempfile.TemporaryDirectory(prefix="espalier-") as folder:
            try:
                size_bytes = int(client.head_object(Bucket=bucket, Key=name)["ContentLength"])
                self._check_size(uri, size_bytes)
                client.download_file(bucket, name, str(Path(folder) / "input"))
            except InvalidInput:
                raise
            except Exception as error:
                raise NotFound(f"{uri} cannot be read: {error}", hint="check bucket, key and credentials") from error
            return self._store.blobs.put_file(Path(folder) / "input")

    def _check_size(self, uri: str, size_bytes: int) -> None:
        most_bytes = self._config.max_file_bytes
        if size_bytes > most_bytes:
            raise InvalidInput(f"{uri} is larger than {most_bytes} bytes", where="inputDataConfig", hint="split it")

    def _place(self, uri: str) -> str:
        """Where `s3://NAME/key` really is: a path, or the address itself. Raises PermissionDenied."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        known = self._config.buckets.get(bucket)
        if known is None:
            raise PermissionDenied(f"no bucket {bucket!r:.80} here", hint="list it in the setting batch.buckets")
        if known == _REAL:
            return uri
        root = (self._store.workspace.root / known).resolve()
        place = (root / key).resolve()
        if not place.is_relative_to(root) or place.is_relative_to(self._store.workspace.folder.resolve()):
            raise PermissionDenied(f"{uri} lies outside its bucket")
        return str(place)


def _fields(standing: Standing) -> JobFields:
    batch, end = standing.batch, standing.end
    counts = end or standing.progress
    told = batch.metadata
    return JobFields(
        id=batch.id,
        name=told.get("jobName", batch.name)[:63],
        model=batch.model,
        role=told.get("roleArn", ""),
        token=told.get("clientRequestToken", ""),
        status=standing.status,
        source=told.get("source", ""),
        destination=told.get("destination", batch.destination),
        invocation="Converse" if batch.shape == "converse" else "InvokeModel",
        hours=max(24, round((batch.expires_ms - batch.created_ms) / 3_600_000)),
        submitted_ms=batch.created_ms,
        changed_ms=(end.ended_ms if end else 0) or standing.cancelling_ms or standing.started_ms or batch.created_ms,
        ended_ms=end.ended_ms if end else 0,
        expires_ms=batch.expires_ms,
        message=end.fault if end else "",
        total=counts.total if counts else 0,
        completed=counts.completed if counts else 0,
        failed=counts.failed if counts else 0,
    )
