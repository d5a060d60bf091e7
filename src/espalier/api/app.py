"""The control plane: one route per operation, errors as JSON by their status, streams as server-sent events.

Routes, OpenAPI and types are read off the operations table. Knows no operation and no store: a context comes from the
factory, an identity from `authenticate`. A body must say `application/json`, which no web page of another origin can
send unasked.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, get_origin

from anyio import to_thread
from fastapi import FastAPI, Request
from pydantic import BaseModel, TypeAdapter
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from espalier import __version__
from espalier.api.openapi import describe_api
from espalier.api.sse import stream_response
from espalier.core.errors import EspalierError, InvalidInput, NotFound, PermissionDenied
from espalier.core.operations import Operation, load_operations
from espalier.core.types import Principal, Run
from espalier.services.context import Context
from espalier.services.dispatch import parse_request, perform

Authenticate = Callable[[str | None], Principal]  # the bearer token, or None; raises Unauthenticated
_MAX_BODY_BYTES = 8 << 20
_ACTOR_HEADER = "X-Espalier-Actor"


def build_api(context_factory: Callable[[], Context], authenticate: Authenticate) -> FastAPI:
    """The ASGI app of every operation. `context_factory` is called per request; it may return the same one."""
    # Swagger's own pages load scripts from a CDN, so they are off; /openapi.json has it all.
    api = FastAPI(title="Espalier", version=__version__, docs_url=None, redoc_url=None)
    table = load_operations()
    for operation in table.values():
        method, path = operation.route.split(" ", 1)
        handler = _make_handler(operation, context_factory, authenticate)
        api.add_api_route(path, handler, methods=[method], name=operation.name, include_in_schema=False)
    api.add_exception_handler(EspalierError, _answer_error)
    api.add_exception_handler(HTTPException, _answer_http_error)
    api.add_exception_handler(Exception, _answer_bug)
    api.openapi = functools.cache(lambda: describe_api(table))  # type: ignore[method-assign]  # FastAPI's own hook
    return api


def _make_handler(
    operation: Operation, context_factory: Callable[[], Context], authenticate: Authenticate
) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        principal = await to_thread.run_sync(authenticate, _bearer_of(request))
        principal = _act_for(principal, request)
        asked = parse_request(operation, await _fields_of(operation, request))
        context = context_factory().acting_as(principal).confine()
        answer = await to_thread.run_sync(perform, context, operation, asked)
        if operation.shape == "stream":
            return await stream_response(answer)
        return _encode(operation, answer)

    return handle


def _encode(operation: Operation, answer: Any) -> Response:
    if operation.shape == "job":
        run: Run = answer
        headers = {"Location": f"/v1/runs/{run.id}"}
        return Response(run.model_dump_json(), 202, headers, media_type="application/json")
    return Response(TypeAdapter(operation.response).dump_json(answer), media_type="application/json")


def _bearer_of(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _act_for(principal: Principal, request: Request) -> Principal:
    """The identity an admin on this very machine names in the header; anyone else may not name one."""
    actor = request.headers.get(_ACTOR_HEADER)
    if not actor or actor == principal.actor:
        return principal
    if not principal.may("admin") or not _is_loopback(request):
        raise PermissionDenied(
            f"{principal.actor} may not act as {actor}", hint=f"leave {_ACTOR_HEADER} out, or use {actor}'s own key"
        )
    return principal.model_copy(update={"actor": actor})


def _is_loopback(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


async def _fields_of(operation: Operation, request: Request) -> dict[str, Any]:
    """Path parameters, with the query or the body; the path wins, since it is what was authorised and logged."""
    given: dict[str, Any]
    if request.method in ("GET", "DELETE"):
        given = _query_of(operation.request, request)
    else:
        given = dict(await _body_of(request))
    return {**given, **request.path_params}


def _query_of(kind: type[BaseModel], request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in request.query_params:
        field = kind.model_fields.get(name)
        origin = get_origin(field.annotation) if field else None
        values = request.query_params.getlist(name)
        if origin in (list, tuple, set, frozenset):
            fields[name] = values
        elif origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
            fields[name] = _parse(values[-1], name)
        else:
            fields[name] = values[-1]
    return fields


async def _body_of(request: Request) -> Mapping[str, Any]:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidInput(f"the body is {kind or 'of no stated type'}", hint="send `Content-Type: application/json`")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise InvalidInput(
                f"the body is larger than {_MAX_BODY_BYTES >> 20} MiB", hint="put files in the workspace"
            )
    data = _parse(bytes(body), "the body") if body else {}
    if not isinstance(data, dict):
        raise InvalidInput("the body is no JSON object", hint="send {...}")
    return data


def _parse(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{what} is not JSON: {error}") from None


async def _answer_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, EspalierError):
        return await _answer_bug(request, error)
    headers = {"Retry-After": str(math.ceil(error.retry_after_s))} if error.retry_after_s > 0 else None
    return JSONResponse({"error": error.to_json()}, error.http_status, headers)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    hint = "OpenAI's clients ask POST /v1/chat/completions (their base_url ends in /v1); GET /openapi.json has the rest"
    known = NotFound(f"no route {request.method} {request.url.path}", hint=hint)
    return JSONResponse({"error": known.to_json()}, status, getattr(error, "headers", None))


async def _answer_bug(request: Request, error: Exception) -> Response:
    # Starlette logs the traceback after this answer; the client is told no more than that.
    bug = EspalierError("something went wrong inside", hint="the server's log has the traceback")
    return JSONResponse({"error": bug.to_json()}, bug.http_status)
