"""The OpenAPI document of the operations table. Knows the table and pydantic's schemas; no web framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter

from espalier import __version__
from espalier.core.operations import Operation
from espalier.core.types import Run

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("code", "message", "hint", "where")},
            "required": ["code", "message", "hint", "where"],
        }
    },
    "required": ["error"],
}
_REF = "#/components/schemas/{model}"


def describe_api(table: Mapping[str, Operation]) -> dict[str, Any]:
    """OpenAPI 3.1 of every operation: parameters, body, answer, and the one shape of errors."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for operation in table.values():
        method, path = operation.route.split(" ", 1)
        paths.setdefault(path, {})[method.lower()] = _describe(operation, method, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Espalier", "version": __version__, "description": "One route per operation."},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }


def _describe(operation: Operation, method: str, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    in_path = set(re.findall(r"{(\w+)}", path))
    request = operation.request.model_json_schema(ref_template=_REF)
    schemas.update(request.pop("$defs", {}))
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"{operation.help}\n\nLeast role: {operation.role}.",
        "tags": [operation.noun],
        "parameters": _parameters(operation.request, request, in_path, in_query=method in ("GET", "DELETE")),
        "responses": {
            **_responses(operation, schemas),
            "default": _json("The error.", {"$ref": "#/components/schemas/Error"}),
        },
    }
    if method not in ("GET", "DELETE"):
        properties = {key: value for key, value in request.get("properties", {}).items() if key not in in_path}
        required = [name for name in request.get("required", []) if name not in in_path]
        body = {**request, "properties": properties, "required": required}
        described["requestBody"] = {"required": bool(required), "content": {"application/json": {"schema": body}}}
    return described


def _parameters(
    kind: type[BaseModel], schema: dict[str, Any], in_path: set[str], *, in_query: bool
) -> list[dict[str, Any]]:
    parameters = []
    for name, field in kind.model_fields.items():
        place = "path" if name in in_path else "query" if in_query else ""
        if place:
            parameters.append(
                {
                    "name": name,
                    "in": place,
                    "required": place == "path" or field.is_required(),
                    "description": field.description or "",
                    "schema": schema["properties"][name],
                }
            )
    return parameters


def _responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    if operation.shape == "stream":
        (item,) = get_args(operation.response)
        names = " or ".join(kind.__name__ for kind in get_args(item) or (item,))
        text = f"Server-sent events, each a {names} as JSON; `event: end` closes, `event: error` carries an error."
        return {"200": {"description": text, "content": {"text/event-stream": {"schema": {"type": "string"}}}}}
    response = Run if operation.shape == "job" else operation.response
    schema = TypeAdapter(response).json_schema(ref_template=_REF, mode="serialization")
    schemas.update(schema.pop("$defs", {}))
    if operation.shape == "job":
        return {"202": _json("Queued: its events are at /v1/runs/{id}/events.", schema)}
    return {"200": _json("The answer.", schema)}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
