"""Identifiers: short, sortable by time, safe in URLs and file names; and the canonical digest of JSON values."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Any

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case
_TIME_CHARS = 9  # 45 bits of milliseconds: until the year 3084
_RANDOM_CHARS = 11  # 55 random bits


def now_ms() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def make_id(kind: str) -> str:
    """A new id such as `run_1hq5z8k3m7wq2c9d4e6f`: later ids sort after earlier ones (to the millisecond)."""
    stamp = _encode(now_ms(), _TIME_CHARS)
    noise = _encode(int.from_bytes(os.urandom(7), "big") >> 1, _RANDOM_CHARS)
    return f"{kind}_{stamp}{noise}"


def canonical_json(value: Any) -> bytes:
    """The one byte string for a JSON value: sorted keys, no spaces, UTF-8, no NaN (RFC 8785 in spirit)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest_of(value: Any) -> str:
    """sha256 (hex) of a JSON value's canonical bytes."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _encode(number: int, chars: int) -> str:
    out = []
    for _ in range(chars):
        out.append(_ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(out))
