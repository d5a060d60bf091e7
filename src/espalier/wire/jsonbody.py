"""A request's body as JSON: what no store, tokenizer or digest could take is refused here. Knows no vendor."""

from __future__ import annotations

import json
from typing import Any

from espalier.core.errors import InvalidInput


def read_json(body: bytes, hint: str = "") -> Any:
    """The value in `body`. Raises InvalidInput with `hint` for what is no JSON, and for what is no Unicode text."""
    try:
        text = body.decode()
        value = json.loads(text)
        if "\\u" in text:  # an escape can spell half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise InvalidInput("the body is not Unicode text", hint="send UTF-8, and surrogates in pairs") from None
    except (ValueError, RecursionError):
        raise InvalidInput("the body is not JSON", hint=hint) from None
    return value
