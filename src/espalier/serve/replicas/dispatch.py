"""Which replica takes a request: the one that probably has its beginning in its cache, unless that one is busier.

Rendezvous hashing (Thaler and Ravishankar, 1998) names a favourite for each adapter and beginning of a prompt, and
keeps most favourites when replicas come and go; the bound on how much busier a favourite may be is that of consistent
hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018). Knows no process.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

from espalier.core.ports import ChatRequest

# Enough to tell system prompts apart; what follows it in a prompt is mostly each request's own.
_BEGINNING_CHARACTERS = 256


class Carries(Protocol):
    """A replica, as far as choosing one goes."""

    @property
    def number(self) -> int: ...

    @property
    def tokens(self) -> int: ...


Carrier = TypeVar("Carrier", bound=Carries)


def choose_replica(replicas: Sequence[Carrier], request: ChatRequest, slack_tokens: int) -> Carrier | None:
    """The favourite of this request among those that carry at most `slack_tokens` more than the least busy one."""
    if not replicas:
        return None
    least = min(replica.tokens for replica in replicas)
    free = [replica for replica in replicas if replica.tokens <= least + slack_tokens]
    beginning = request.messages[0].content[:_BEGINNING_CHARACTERS] if request.messages else ""
    key = f"{request.adapter}\n{beginning}".encode(errors="replace")
    return max(free, key=lambda replica: blake2b(key, salt=replica.number.to_bytes(8, "big")).digest())
