"""Usage: what was asked and what it cost, by model and by key, exactly as the ledger has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from espalier.core.errors import NotFound
from espalier.core.operations import operation
from espalier.core.types import Spec

if TYPE_CHECKING:
    from espalier.services.context import Context

_MS_PER_HOUR = 3_600_000


class ShowUsage(Spec):
    """How to sum up."""

    by: Literal["model", "key"] = Field("model", description="one row for each model version, or each key")
    hours: int = Field(0, ge=0, description="only the last so many hours; 0 = since the beginning")


class UsageRow(Spec):
    """One sum over the ledger; money in nano-USD (1e-9 USD)."""

    name: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    amount_nusd: int


@operation("usage.show", "GET /v1/usage", role="admin")
def show(context: Context, request: ShowUsage) -> list[UsageRow]:
    """Sum up requests, tokens and cost by model version or by key.

    Example:
        espalier usage show --by key --hours 24
    """
    from espalier.core.ids import now_ms

    since_ms = now_ms() - request.hours * _MS_PER_HOUR if request.hours else 0
    totals = context.store.ledger.totals(request.by, since_ms)
    return [UsageRow.model_validate(total.model_dump()) for total in totals]


class NameRequest(Spec):
    """Which request."""

    request: str = Field(description="request id: the x-request-id header of its answer")


class RequestUsage(Spec):
    """What one answer used and cost, and which version gave it."""

    request: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    amount_nusd: int
    latency_ms: int


@operation("usage.request", "GET /v1/requests/{request}/usage", positional=("request",))
def show_request(context: Context, request: NameRequest) -> RequestUsage:
    """Show what one answer used and cost."""
    for row in context.store.ledger.find(request.request):
        if row.kind in ("usage", "settle"):
            return RequestUsage.model_validate(row.model_dump(include=set(RequestUsage.model_fields)))
    raise NotFound(f"no usage of request {request.request}", hint="it is booked when the answer has ended")
