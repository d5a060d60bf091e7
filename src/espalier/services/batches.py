"""Batches: a file of requests answered when nobody else asks, resumed after any crash; OpenAI's shape or Bedrock's.

OpenAI's own client speaks to /v1/files and /v1/batches (gateway/batch/routes.py); these are the same batches.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from espalier.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from espalier.core.events import Event
from espalier.core.operations import operation
from espalier.core.types import Spec

if TYPE_CHECKING:
    from espalier.gateway.batch.records import Batch, Batches, Standing
    from espalier.gateway.keys import ApiKey
    from espalier.services.context import Context

_LOOK_S = 0.3
_LOOK_BACK = 200  # batches among which one that was begun before is looked for
_GONE = ("failed", "cancelled", "expired")
_LINES = {  # what a file of requests looks like
    "openai": '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...]}}',
    "invoke": '{"recordId": "1", "modelInput": {"messages": [{"role": "user", "content": "..."}]}}',
    "converse": '{"recordId": "1", "modelInput": {"messages": [{"role": "user", "content": [{"text": "..."}]}]}}',
}


class CreateBatch(Spec):
    """What to ask, in whose shape."""

    file: str = Field(description="JSONL file of requests, one a line")
    model: str = Field("", description="what is asked where a line names no model; Bedrock's shapes need it")
    shape: Literal["openai", "invoke", "converse"] = Field(
        "openai", description="openai: custom_id, method, url, body; invoke, converse: Bedrock's recordId, modelInput"
    )
    window: str = Field("24h", description="when what is not answered expires: 30m, 24h, 7d")
    destination: str = Field("", description="folder, or s3:// prefix, to put Bedrock's output and manifest in besides")


class BatchView(Spec):
    """One batch and how it stands. `completed` and `failed` count lines; `left_s` is an estimate.

    `fault` says why it has failed, or why none of its lines was answered.
    """

    id: str
    status: str
    name: str
    shape: str
    model: str
    total: int
    completed: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    left_s: float | None
    output_file: str
    error_file: str
    created_ms: int
    ended_ms: int
    fault: str


@operation("batches.create", "POST /v1/batch-jobs", positional=("file",))
def create(context: Context, request: CreateBatch) -> BatchView:
    """Queue a file of requests; a server of this workspace answers them when nobody else asks.

    Example:
        espalier batch create tickets.jsonl --model support@production
    """
    return _view(_create(context, request))


class ListBatches(Spec):
    """How many to list."""

    limit: int = Field(20, ge=1, le=200, description="at most this many, the newest first")


@operation("batches.list", "GET /v1/batch-jobs")
def list_all(context: Context, request: ListBatches) -> list[BatchView]:
    """List batches, the newest first: your key's, or all for an admin.

    Example:
        espalier batch list
    """
    return [_view(standing) for standing in _open(context).list(_owner(context), limit=request.limit)]


class NameBatch(Spec):
    """Which batch."""

    id: str = Field(description="the batch's id, as `espalier batch list` shows it")


@operation("batches.show", "GET /v1/batch-jobs/{id}", positional=("id",))
def show(context: Context, request: NameBatch) -> BatchView:
    """Show how a batch stands.

    Example:
        espalier batch show batch_1hq5z8k3m7wq2c9d4e6f
    """
    return _view(_open(context).get(request.id, _owner(context)))


@operation("batches.cancel", "POST /v1/batch-jobs/{id}/cancel", positional=("id",))
def cancel(context: Context, request: NameBatch) -> BatchView:
    """End a batch: what is under way is finished, what is done is kept and can be fetched.

    Example:
        espalier batch cancel batch_1hq5z8k3m7wq2c9d4e6f
    """
    return _view(_open(context).cancel(request.id, _owner(context), actor=context.actor))


class FetchResults(Spec):
    """Which batch's results, and where to."""

    id: str = Field(description="the batch's id")
    output: str = Field(
        description="file for the answers, replaced where there is one; failures go beside it, to NAME.errors.jsonl"
    )


class BatchResults(Spec):
    """Where the results are. A path is empty where there is nothing to tell."""

    id: str
    status: str
    output: str
    errors: str
    manifest: str
    completed: int
    failed: int
    total: int


@operation("batches.results", "POST /v1/batch-jobs/{id}/results", positional=("id",))
def results(context: Context, request: FetchResults) -> BatchResults:
    """Write an ended batch's results to files: every line of the input once, in the input's order.

    Example:
        espalier batch results batch_1hq5z8k3m7wq2c9d4e6f --output answers.jsonl
    """
    output = context.place(request.output)
    _check_output(output)
    return _deliver(context, _open(context).get(request.id, _owner(context)), output)


class RunBatch(CreateBatch):
    """What to ask, in whose shape, and where the answers go."""

    output: str = Field(
        "", description="file for the answers, replaced where there is one; empty = FILE with .out.jsonl for its ending"
    )


@operation("batches.run", "POST /v1/batch-jobs/run", shape="stream", positional=("file",))
def run(context: Context, request: RunBatch) -> Iterator[Event]:
    """Answer a file of requests and wait: by a server of this workspace where one runs, else in this process.

    Stopped or killed, the same command goes on where it was: nothing is asked or charged twice.

    Example:
        espalier batch run tickets.jsonl --model support@production --output answers.jsonl
    """
    file = context.place(request.file)
    output = context.place(request.output or str(file.with_suffix(".out.jsonl")))
    _check_output(output, file)
    batches = _open(context)
    begun = _find_begun(context, batches, request)
    if begun is None and request.model:
        _check_model(context, batches, request.model)
    batch = (begun or _create(context, request)).batch
    yield Event("log", {"message": f"{'going on with' if begun else 'batch'} {batch.id}"})
    if _sees_server(batches):
        ends = f"the server answers it, whoever looks on; `espalier batch cancel {batch.id}` ends it"
        yield Event("log", {"message": ends})
    standing = yield from _follow(context, batches, batch)
    written = _deliver(context, standing, output)
    context.store.records.put("batch-delivered", batch.id, NameBatch(id=batch.id))
    yield Event("batch.finished", written.model_dump())
    unasked = written.total - written.completed - written.failed
    if unasked:
        raise Conflict(
            f"batch {batch.id} was {written.status} with {unasked} of {written.total} lines unasked",
            hint=f"{written.errors or written.output} names them; the same command asks anew",
        )
    if standing.end is not None and standing.end.fault:
        raise InvalidInput(f"batch {batch.id}: {standing.end.fault}", hint=f"read {written.errors or written.output}")


def _follow(context: Context, batches: Batches, batch: Batch) -> Generator[Event, None, Standing]:
    """Events until it has ended; returns how it stands then. Works on it in this process where no server does."""
    from espalier.services.batchworker import BatchWorker

    worker: BatchWorker | None = None
    try:
        while True:
            standing = batches.get(batch.id)
            if standing.end is not None:
                return standing
            yield _progress(standing)
            if worker is None and not _sees_server(batches):
                if context.confined:
                    raise Unavailable("this server takes no batches", hint="start one with serve.worker=true")
                worker = BatchWorker(context, batch.id).start()
            if worker is not None:
                worker.check()
            time.sleep(_LOOK_S)
    finally:
        if worker is not None:
            worker.stop()


def _sees_server(batches: Batches) -> bool:
    """Whether a server of this workspace works on batches now."""
    from espalier.gateway.batch.runner import sees_sign

    return sees_sign(batches.folder)


def _progress(standing: Standing) -> Event:
    progress = standing.progress
    if progress is None:
        return Event("batch.progress", {"batch": standing.batch.id, "what": standing.status, "done": 0, "total": 0})
    told = {
        "batch": standing.batch.id,
        "what": standing.status.replace("_", " "),
        "done": progress.completed + progress.failed,
        "failed": progress.failed,
        "total": progress.total,
        "prompt_tokens": progress.prompt_tokens,
        "completion_tokens": progress.completion_tokens,
        "eta_ms": round((progress.left_s or 0) * 1000),
    }
    return Event("batch.progress", told)


def _create(context: Context, request: CreateBatch) -> Standing:
    file = context.place(request.file)
    if not file.is_file():
        raise NotFound(f"no file {request.file}", hint=f"write one request a line: {_LINES[request.shape]}")
    if request.shape != "openai" and not request.model:
        raise InvalidInput("a job in Bedrock's shape names its model", where="model", hint="--model support@production")
    if request.destination and request.shape == "openai":
        raise InvalidInput("a destination goes with Bedrock's shapes", where="destination", hint="use batches.results")
    destination = request.destination
    if context.confined and destination.startswith("s3://"):
        context.require("admin")  # it is written with this server's own credentials
    if destination and not destination.startswith("s3://"):
        destination = str(context.place(destination))
    batches = _open(context)
    sha256, size_bytes = context.store.blobs.put_file(file)
    batch = batches.create(
        request.shape,
        file.name,
        sha256,
        size_bytes,
        model=request.model,
        key=_key(context),
        actor=context.actor,
        window=request.window,
        destination=destination,
    )
    return batches.get(batch.id)


def _check_output(output: Path, file: Path | None = None) -> None:
    """Raises InvalidInput where answers cannot go, before any line is asked, or would replace the questions."""
    if output.is_dir():
        raise InvalidInput(f"{output} is a folder", where="output", hint=f"name a file: {output / 'answers.jsonl'}")
    written = {each.resolve() for each in (output, _errors_beside(output))}
    if file is not None and file.resolve() in written:
        raise InvalidInput(f"the answers would replace the questions in {file}", where="output", hint="name another")


def _errors_beside(output: Path) -> Path:
    return output.with_suffix(".errors.jsonl")


def _check_model(context: Context, batches: Batches, name: str) -> None:
    """Raises NotFound with the nearest name where this process is to ask it: a server may know names of its own."""
    from espalier.gateway.route import resolve
    from espalier.services.resolver import RegistryResolver

    if not context.confined and not _sees_server(batches):
        resolve(RegistryResolver(context.store, context.config.config.serve), name)


def _find_begun(context: Context, batches: Batches, request: CreateBatch) -> Standing | None:
    """A batch that asks the same, begun before and not yet handed over."""
    from espalier.store.blobs import hash_file

    file = context.place(request.file)
    if not file.is_file():
        return None
    source, key = hash_file(file), _key(context)
    for standing in batches.list(key.payer if key else "", limit=_LOOK_BACK):
        known = standing.batch
        same = (known.source, known.shape, known.model, known.home) == (
            source, request.shape, request.model, batches.home,
        )  # fmt: skip
        if same and standing.status not in _GONE and not context.store.records.has("batch-delivered", known.id):
            return standing
    return None


def _deliver(context: Context, standing: Standing, output: Path) -> BatchResults:
    from espalier.core.ids import canonical_json
    from espalier.gateway.batch.deliver import copy_blob, manifest_of
    from espalier.store.disk import write_file

    batch, end = standing.batch, standing.end
    if end is None:
        raise Conflict(f"batch {batch.id} is {standing.status}", hint="its results are whole when it has ended")
    if end.status == "failed" and not end.total:
        raise InvalidInput(f"batch {batch.id} failed: {end.fault}")
    output.parent.mkdir(parents=True, exist_ok=True)
    errors, manifest = _errors_beside(output), output.with_name("manifest.json.out")
    if end.output:
        copy_blob(context.store.blobs, end.output, output)
    else:
        write_file(output, b"")
    if end.errors:
        copy_blob(context.store.blobs, end.errors, errors)
    elif batch.shape == "openai":
        errors.unlink(missing_ok=True)  # those of an earlier run would be taken for this one's
    if batch.shape != "openai":
        write_file(manifest, canonical_json(manifest_of(end)))
    return BatchResults(
        id=batch.id,
        status=end.status,
        output=str(output),
        errors=str(errors) if end.errors else "",
        manifest=str(manifest) if batch.shape != "openai" else "",
        completed=end.completed,
        failed=end.failed,
        total=end.total,
    )


def _open(context: Context) -> Batches:
    from espalier.gateway.batch.records import Batches

    return Batches(context.store)


def _key(context: Context) -> ApiKey | None:
    """On whose account: the key that asks over the network; at the files themselves, the owner's."""
    from espalier.gateway.keys import KeyRing

    return KeyRing(context.store).get(context.principal.key) if context.principal.key else None


def _owner(context: Context) -> str | None:
    """Whose batches may be seen: an admin sees all."""
    if context.principal.may("admin"):
        return None
    key = _key(context)
    return key.payer if key else ""


def _view(standing: Standing) -> BatchView:
    batch, end, progress = standing.batch, standing.end, standing.progress
    counts = end or progress
    return BatchView(
        id=batch.id,
        status=standing.status,
        name=batch.name,
        shape=batch.shape,
        model=batch.model,
        total=counts.total if counts else 0,
        completed=counts.completed if counts else 0,
        failed=counts.failed if counts else 0,
        prompt_tokens=counts.prompt_tokens if counts else 0,
        completion_tokens=counts.completion_tokens if counts else 0,
        left_s=progress.left_s if progress and not end else None,
        output_file=end.output_file if end else "",
        error_file=end.error_file if end else "",
        created_ms=batch.created_ms,
        ended_ms=end.ended_ms if end else 0,
        fault=end.fault if end else "",
    )
