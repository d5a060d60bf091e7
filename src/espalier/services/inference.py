"""Asking: put a question to a running server, and follow an answer back to the pages it was trained on."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from pydantic import Field

from espalier.core import errors
from espalier.core.errors import EspalierError, InvalidInput, NotFound, Unavailable
from espalier.core.events import Event
from espalier.core.operations import operation
from espalier.core.ports import Delta
from espalier.core.types import Spec
from espalier.services.tracing import RequestTrace

if TYPE_CHECKING:
    from espalier.services.context import Context

_TIMEOUT_S = 300
_MS_PER_DAY = 86_400_000


class Ask(Spec):
    """What to ask whom."""

    question: str = Field(description="the question, or the document")
    model: str = Field("builtin:seedling", description="a name such as support@production, or a base")
    prompt: str = Field("", description="prompt:NAME@vN to ask it through; empty = as written")
    max_tokens: int = Field(256, ge=1, description="longest answer, in tokens")
    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy: the same answer every time")


@operation("inference.ask", "POST /v1/ask", shape="stream", positional=("question",))
def ask(context: Context, request: Ask) -> Iterator[Delta | Event]:
    """Ask a model of the running server, streaming; the answer is booked in the ledger like any client's.

    Example:
        espalier ask "$(cat ticket.txt)" --model support@production --prompt support-dossier
    """
    from espalier.gateway.keys import KeyRing

    messages = [{"role": "user", "content": request.question}]
    if request.prompt:
        from espalier.services.prompts import RenderPrompt, render

        rendered = render(context, RenderPrompt(ref=request.prompt, input=request.question))
        messages = [turn.model_dump() for turn in rendered.messages]
    body = {
        "model": request.model,
        "messages": messages,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    ring = KeyRing(context.store)
    # A key for this one question: no secret is ever kept on disk for the command line's sake.
    key = ring.create("ask", actor=context.actor, lifetime_ms=_MS_PER_DAY, created_by=context.actor)
    try:
        yield from _stream(context, body, key.secret)
    finally:
        ring.revoke(key.key.id, actor=context.actor)


class TraceRequest(Spec):
    """Which answer to follow back."""

    request: str = Field(description="request id: the x-request-id header, or the id of a completion")
    documents: int = Field(5, ge=0, le=10_000, description="name so many of the documents it was trained on")


@operation("inference.trace", "GET /v1/requests/{request}/trace", positional=("request",))
def trace(context: Context, request: TraceRequest) -> RequestTrace:
    """Follow an answer from its ledger row to model, approvals, evidence, run, dataset, documents and pages.

    Example:
        espalier trace req_1hq5z8k3m7wq2c9d4e6f
    """
    from espalier.services.tracing import trace_request

    return trace_request(context.store, request.request, documents=request.documents)


def _stream(context: Context, body: dict[str, Any], secret: str) -> Iterator[Delta | Event]:
    serve = context.config.config.serve
    url = f"http://{serve.host}:{serve.port}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    sent = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(sent, timeout=_TIMEOUT_S) as reply:
            yield from _read_events(reply, reply.headers.get("x-request-id", ""))
    except urllib.error.HTTPError as error:
        raise _as_ours(error) from None
    except urllib.error.URLError as error:
        raise Unavailable(
            f"no server answers at {serve.host}:{serve.port} ({error.reason})", hint="start one: `espalier serve`"
        ) from None


def _read_events(reply: IO[bytes], request_id: str) -> Iterator[Delta | Event]:
    usage: dict[str, Any] = {}
    for line in reply:
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk:
            raise EspalierError(chunk["error"]["message"])
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text = choice["delta"].get("content") or ""
            if text:
                yield Delta(text)
    yield Event("ask.finished", {"request": request_id, **usage})


def _as_ours(error: urllib.error.HTTPError) -> EspalierError:
    """OpenAI's error shape as the error it was raised as."""
    try:
        said = json.loads(error.read())["error"]
    except (ValueError, KeyError):
        return EspalierError(f"the server answered {error.code}", hint="see its log")
    by_status = {kind.http_status: kind for kind in (InvalidInput, NotFound, *errors.kinds().values())}
    kind = errors.kinds().get(said.get("code") or "", by_status.get(error.code, EspalierError))
    return kind(said["message"])
