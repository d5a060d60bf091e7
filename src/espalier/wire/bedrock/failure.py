"""Our error tree in the shape of AWS' REST APIs: the class in a header, the message in the body."""

from __future__ import annotations

import json

from espalier.core import errors
from espalier.core.errors import EspalierError

# Ours -> (status, name); Bedrock's model of its own service says which statuses go with which names.
_SHAPES: tuple[tuple[type[EspalierError], int, str], ...] = (
    (errors.NotFound, 404, "ResourceNotFoundException"),
    (errors.InvalidInput, 400, "ValidationException"),
    (errors.Unauthenticated, 403, "AccessDeniedException"),
    (errors.PermissionDenied, 403, "AccessDeniedException"),
    (errors.Conflict, 400, "ConflictException"),
    (errors.BudgetExceeded, 400, "ServiceQuotaExceededException"),
    (errors.RateLimited, 429, "ThrottlingException"),
    (errors.Unavailable, 503, "ServiceUnavailableException"),
)


def encode_error(error: EspalierError) -> tuple[int, str, bytes]:
    """(HTTP status, value of `x-amzn-ErrorType`, body)."""
    message = f"{error.message}. Next: {error.hint}" if error.hint else error.message
    body = json.dumps({"message": message}).encode()
    for kind, status, name in _SHAPES:
        if isinstance(error, kind):
            return status, name, body
    return 500, "InternalServerException", body
