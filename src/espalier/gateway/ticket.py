"""A `Ticket`: one admitted request, what it may use and what it has used; and the ledger row that comes of it.

The row names key, version, adapter, tokens, amount and latency, and the digest of the messages: never a word of them.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from espalier.core.errors import EspalierError
from espalier.core.ids import digest_of, make_id
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import LedgerEntry, Usage
from espalier.core.types.inference import FinishReason
from espalier.gateway.keys import ApiKey
from espalier.gateway.price import Price
from espalier.gateway.route import Target
from espalier.wire.openai.request import ChatCall

_FINISHED = ("stop", "length", "tool_calls")
_log = logging.getLogger("espalier.gateway")


@dataclass(frozen=True, slots=True)
class ShadowOf:
    """On the ticket of a shadow: whose copy it answered."""

    request: str
    model: str
    same_words: bool


@dataclass(slots=True)
class Ticket:
    """One admitted request, and, as it is answered, what it used. Cost and latency are final once it is settled."""

    request: ChatRequest
    call: ChatCall
    target: Target
    key: ApiKey | None
    price: Price | None
    prompt_tokens: int
    started_s: float
    started_ms: int
    reserved_nusd: int = 0
    most_nusd: int | None = None  # it is charged no more: a batch's line that is taken up again
    pieces: int = 0
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    finished: int = 0  # of the `n` answers, those that came to their end
    cost_nusd: int = 0
    first_ms: int = 0  # until the first piece of the answer
    latency_ms: int = 0
    settled: bool = False
    refused: bool = False  # the provider found the request itself at fault, or had no room for it: nobody's failure
    heard: list[str] = field(default_factory=list)  # the answer's words, kept only where a shadow is compared with them
    shadow_of: ShadowOf | None = None

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def is_to_be_resumed(self) -> bool:
        """Whether its answer broke off and its batch will ask for it again."""
        return self.request.lane == "batch" and self.finished < self.request.sampling.n

    def note(self, delta: Delta) -> None:
        """Take in a delta's figures. Raises EspalierError when another adapter computed it than the pinned one."""
        if delta.adapter is not None and delta.adapter != self.target.adapter:
            _log.error("request %s: adapter %s answered, not %s", self.id, delta.adapter, self.target.adapter)
            raise EspalierError("another adapter answered than the one this request was pinned to", hint="ask again")
        if not self.first_ms:
            self.first_ms = max(1, self.elapsed_ms())
        self.pieces += bool(delta.text)
        self.finished += delta.finish_reason in _FINISHED
        if self.target.shadows and delta.index == 0:
            self.heard.append(delta.text)
        self.usage = delta.usage or self.usage
        self.finish_reason = delta.finish_reason or self.finish_reason

    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started_s) * 1000)

    def used(self) -> Usage:
        """What the provider said; where it was cut off before it said anything, what is known for certain."""
        if self.usage is not None:
            return self.usage
        if self.finish_reason == "error" and not self.pieces:
            return Usage(prompt_tokens=0, completion_tokens=0)
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.pieces)


def write_usage(ticket: Ticket) -> LedgerEntry:
    """The ticket's usage row; cost, latency and finish reason become final on the ticket too."""
    if ticket.finished < ticket.request.sampling.n and ticket.finish_reason != "error":
        ticket.finish_reason = "cancelled"  # whatever became of those of its answers that did end
    used = ticket.used()
    ticket.latency_ms = ticket.elapsed_ms()
    ticket.cost_nusd = ticket.price.cost_nusd(used.prompt_tokens, used.completion_tokens) if ticket.price else 0
    if ticket.most_nusd is not None:
        ticket.cost_nusd = min(ticket.cost_nusd, ticket.most_nusd)
    sampling = ticket.request.sampling
    detail: dict[str, Any] = {
        "asked": ticket.call.model,
        "base": ticket.target.base,
        "finish": ticket.finish_reason,
        "stream": ticket.call.stream,
        "first_ms": ticket.first_ms,
        "prompt_digest": digest_of([[message.role, message.content] for message in ticket.request.messages]),
        "sampling": sampling.model_dump(mode="json", exclude={"stop", "format"}, exclude_defaults=True),
        "priced": ticket.price is not None,
    }
    if used.cached_tokens:
        detail["cached_tokens"] = used.cached_tokens
    if sampling.format is not None:
        detail["format"] = sampling.format.kind
    if ticket.request.lane != "interactive":
        detail["lane"] = ticket.request.lane
    if ticket.request.tools:
        detail["tools"] = len(ticket.request.tools)
    if ticket.target.reservation:
        detail["reservation"] = ticket.target.reservation
    if ticket.target.deployment:
        detail["deployment"] = ticket.target.deployment
    if ticket.shadow_of is not None:
        detail["shadow_of"] = asdict(ticket.shadow_of)
    if ticket.call.metadata:
        detail["tags"] = dict(ticket.call.metadata)
    return LedgerEntry(
        id=make_id("entry"),
        request=ticket.id,
        kind="usage",
        key=ticket.key.payer if ticket.key else "",
        model=ticket.target.model,
        adapter=ticket.target.adapter,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        amount_nusd=ticket.cost_nusd,
        latency_ms=ticket.latency_ms,
        at_ms=ticket.started_ms,
        detail=detail,
    )
