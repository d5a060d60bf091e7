"""Asking: put a question to a running server, and follow an answer back to the pages it was trained on."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from pydantic import Field

from espalier.core.events import Event
from espalier.core.operations import operation
from espalier.core.ports import Delta
from espalier.core.types import Spec
from espalier.services.ownserver import no_server, server_url
from espalier.services.tracing import RequestTrace
from espalier.wire.openai.chunks import EventReader
from espalier.wire.openai.failure import decode_error

if TYPE_CHECKING:
    from espalier.services.context import Context

_TIMEOUT_S = 300
_LOAN_MS = 600_000


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
    # A key for this one question: no secret is kept on disk, and who asks through a key asks on that key's budget.
    loan = ring.lend(context.actor, _LOAN_MS, lender=context.principal.key)
    try:
        yield from _stream(context, body, loan.secret)
    finally:
        ring.revoke(loan.key.id, actor=context.actor)


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
    url = f"{server_url(serve)}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    sent = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(sent, timeout=_TIMEOUT_S) as reply:
            yield from _read_events(reply, reply.headers.get("x-request-id", ""))
    except urllib.error.HTTPError as error:
        raise decode_error(error.code, error.read()) from None
    except urllib.error.URLError as error:
        raise no_server(serve, error.reason) from None


def _read_events(reply: IO[bytes], request_id: str) -> Iterator[Delta | Event]:
    usage: dict[str, Any] = {}
    reader = EventReader()
    for line in reply:
        for delta in reader.read(line):
            if delta.usage is not None:
                usage = {**delta.usage.model_dump(), "total_tokens": delta.usage.total_tokens}
            if delta.text:
                yield Delta(delta.text)
    yield Event("ask.finished", {"request": request_id, **usage})
