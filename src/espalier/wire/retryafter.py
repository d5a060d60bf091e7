"""The header Retry-After, as any server may send it. Knows no connection."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from espalier.core.ids import now_ms


def read_wait_s(text: str) -> float:
    """Seconds of a Retry-After header, a number or a date (RFC 9110, section 10.2.3); 0 where it is neither."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_ms() / 1000)
    except ValueError:
        return 0.0
