"""Our error tree in OpenAI's shape, `{"error": {message, type, param, code}}`, and back.

On this door a spent budget is 429 `insufficient_quota`, as OpenAI sends it, so that clients written for OpenAI know
it; our own routes say 402. The `code` of an error is OpenAI's where it has one and ours where it has none.
"""

from __future__ import annotations

import json
from typing import Any

from espalier.core import errors
from espalier.core.errors import EspalierError

# Ours -> (status, type, code).
_SHAPES: dict[type[EspalierError], tuple[int, str, str]] = {
    errors.InvalidInput: (400, "invalid_request_error", "invalid_value"),
    errors.Unauthenticated: (401, "invalid_request_error", "invalid_api_key"),
    errors.BudgetExceeded: (429, "insufficient_quota", "insufficient_quota"),
    errors.PermissionDenied: (403, "invalid_request_error", "permission_denied"),
    errors.RateLimited: (429, "requests", "rate_limit_exceeded"),
}
_BACK = {
    "invalid_api_key": errors.Unauthenticated,
    "insufficient_quota": errors.BudgetExceeded,
    "permission_denied": errors.PermissionDenied,
    "rate_limit_exceeded": errors.RateLimited,
    "model_not_found": errors.NotFound,
    "invalid_value": errors.InvalidInput,
}
_BY_STATUS = {
    400: errors.InvalidInput,
    401: errors.Unauthenticated,
    402: errors.BudgetExceeded,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    422: errors.InvalidInput,
    429: errors.RateLimited,
    503: errors.Unavailable,
}


def encode_error(error: EspalierError, *, param: str = "") -> tuple[int, bytes]:
    """(HTTP status, body). The message carries the hint; `param` is what is at fault, else the error's `where`."""
    status, kind, code = _shape(error, param or error.where)
    message = f"{error.message}. Next: {error.hint}" if error.hint else error.message
    return status, encode_fault(message, kind, code, param or error.where)


def encode_fault(message: str, kind: str, code: str, param: str = "") -> bytes:
    """The body of an error that has no class of its own, such as a route that does not exist."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param or None, "code": code}}).encode()


def decode_error(status: int, body: bytes) -> EspalierError:
    """What an endpoint's error means to us; a body in no known shape still gives the class its status says."""
    fault = _fault(body)
    code = str(fault.get("code") or "")
    kind = _BACK.get(code) or errors.kinds().get(code) or _BY_STATUS.get(status, EspalierError)
    message, _, hint = str(fault.get("message") or f"the endpoint answered {status}").partition(". Next: ")
    return kind(message, hint=hint, where=str(fault.get("param") or ""))


def _shape(error: EspalierError, param: str) -> tuple[int, str, str]:
    if isinstance(error, errors.NotFound):
        return 404, "invalid_request_error", "model_not_found" if param == "model" else error.code
    for kind, shape in _SHAPES.items():
        if isinstance(error, kind):
            return shape
    return error.http_status, "server_error" if error.http_status >= 500 else "invalid_request_error", error.code


def _fault(body: bytes) -> dict[str, Any]:
    try:
        fault = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return fault if isinstance(fault, dict) else {"message": str(fault)}
