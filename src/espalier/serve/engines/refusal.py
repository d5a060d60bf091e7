"""What a server's refusal means to those who ask us, who know nothing of that server or of our key to it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from espalier.core.errors import EspalierError, InvalidInput, RateLimited, Unavailable
from espalier.serve.engines.line import Reply
from espalier.serve.engines.plan import EnginePlan
from espalier.wire.openai.failure import decode_error

_SHOWN_CHARS = 300
_ASKED_WRONGLY = (400, 404, 413, 422)


def explain_refusal(reply: Reply) -> EspalierError:
    """The error to raise. What is wrong between us and the server (a key, a fault of its own) is Unavailable."""
    error = decode_error(reply.status, reply.content)
    message = (_plain_message(reply.content) or error.message)[:_SHOWN_CHARS]
    wait_s = reply.retry_after_s
    if reply.status == 429:
        return RateLimited(f"the model's server is busy: {message}", hint="ask again later", retry_after_s=wait_s)
    if reply.status in (401, 403):
        return Unavailable(
            "the model's server does not take our key", hint="set the variable that the engine's key_env names"
        )
    if reply.status in _ASKED_WRONGLY:
        kind = type(error) if reply.status == 404 else InvalidInput
        return kind(message, hint=error.hint, where=error.where)
    return Unavailable(
        f"the model's server answered {reply.status}: {message}", hint="its log says why", retry_after_s=wait_s
    )


def find_key(plan: EnginePlan, environ: Mapping[str, str] | None = None) -> str:
    """The key of a server found at a URL, empty where it needs none. Raises InvalidInput for a variable not set."""
    name = plan.engine.key_env
    key = (os.environ if environ is None else environ).get(name, "").strip() if name else ""
    if name and not key:
        raise InvalidInput(f"the environment variable {name} is empty", where=f"{plan.where}.key_env")
    return key


def _plain_message(content: bytes) -> str:
    """The message of errors that are not in OpenAI's shape: FastAPI's `detail`, vLLM's before 0.10."""
    try:
        fault = json.loads(content)
    except ValueError:
        return ""
    found = (fault.get("detail") or fault.get("message")) if isinstance(fault, dict) else ""
    return found if isinstance(found, str) else ""
