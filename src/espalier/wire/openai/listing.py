"""`GET /v1/models`: what may be asked, as OpenAI lists it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Listing:
    """One name a client may put in `model`, and when it came to be."""

    id: str
    created_ms: int = 0
    owned_by: str = "espalier"


def encode_model(listing: Listing) -> dict[str, Any]:
    """One model in OpenAI's shape; `created` is in seconds there."""
    return {
        "id": listing.id, "object": "model", "created": listing.created_ms // 1000, "owned_by": listing.owned_by,
    }  # fmt: skip


def encode_models(listings: list[Listing]) -> dict[str, Any]:
    return {"object": "list", "data": [encode_model(listing) for listing in listings]}
