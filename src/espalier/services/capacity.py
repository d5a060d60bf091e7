"""Provisioned throughput: reserve model units for a model, see what is held, let it go, measure what there is.

A *model unit* on a base is one slot of its engine, and the tokens a minute that one slot has of the whole: measured
(or configured) tokens a minute divided by `serve.max_batch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from espalier.core.errors import InvalidInput, PermissionDenied
from espalier.core.operations import operation
from espalier.core.types import Spec
from espalier.core.types.capacity import TERM_DAYS, MeasuredCapacity, Reservation, Term

if TYPE_CHECKING:
    from espalier.services.context import Context

_MS_PER_DAY = 86_400_000
State = Literal["active", "ended"]


class ReserveCapacity(Spec):
    """What to hold, for which model, and for how long."""

    model: str = Field(description="name, alias or version, e.g. support@production; or a base, e.g. builtin:seedling")
    name: str = Field("", description="the reservation's own name; empty = the model's")
    model_units: int = Field(1, ge=1, description="each one slot, and that slot's share of the tokens a minute")
    term: Term = Field("none", description="none: until released; month, sixmonths: committed so long, then it ends")
    tokens_per_minute: int = Field(0, ge=0, description="guaranteed, prompts and answers; 0 = the model units' share")
    slots: int = Field(0, ge=0, description="requests answered at once, whatever others ask; 0 = one for each unit")


class ReservationView(Spec):
    """A reservation as lists show it."""

    name: str
    state: State
    model: str
    base: str
    model_units: int
    slots: int
    tokens_per_minute: int
    term: Term
    created_ms: int
    expires_ms: int
    actor: str
    asked_as: str


@operation("capacity.reserve", "POST /v1/capacity", role="approver")
def reserve(context: Context, request: ReserveCapacity) -> ReservationView:
    """Reserve capacity for a model. Serving processes hold it within a second; its requests find it by themselves.

    Example:
        espalier capacity reserve --model support@production --model-units 2 --term month
    """
    from espalier.core.ids import now_ms
    from espalier.gateway.route import find_target
    from espalier.registry.reservations import add_reservation
    from espalier.services.resolver import RegistryResolver

    context.require("approver")
    serve = context.config.config.serve
    target = find_target(RegistryResolver(context.store, serve), request.model)
    most = _most_tokens_per_minute(context, target.base)
    created_ms, days = now_ms(), TERM_DAYS[request.term]
    wanted = Reservation(
        name=request.name or target.name.rpartition(":")[2].rpartition("/")[2].lower(),
        model=request.model,
        base=target.base,
        model_units=request.model_units,
        slots=request.slots or request.model_units,
        tokens_per_minute=request.tokens_per_minute or max(1, request.model_units * most // serve.max_batch),
        term=request.term,
        created_ms=created_ms,
        expires_ms=created_ms + days * _MS_PER_DAY if days else 0,
        actor=context.actor,
    )
    made = add_reservation(context.store, wanted, most_slots=serve.max_batch, most_tokens_per_minute=most)
    return _view(made, "active")


class ListCapacity(Spec):
    """Whether to list what has ended too."""

    ended: bool = Field(False, description="also what was released or has run out")
    limit: int = Field(100, ge=1, le=1000, description="at most this many of those, the newest first")


@operation("capacity.list", "GET /v1/capacity")
def list_all(context: Context, request: ListCapacity) -> list[ReservationView]:
    """List what is reserved.

    Example:
        espalier capacity list
    """
    from espalier.registry.reservations import list_past, list_reservations

    active = list_reservations(context.store)
    found = [_view(each, "active") for each in active]
    if request.ended:
        found += [_view(each, "ended") for each in list_past(context.store, request.limit) if each not in active]
    return found


class ShowCapacity(Spec):
    """Which reservation."""

    name: str = Field(description="the reservation's name")


@operation("capacity.show", "GET /v1/capacity/{name}", positional=("name",))
def show(context: Context, request: ShowCapacity) -> ReservationView:
    """Show a reservation in force.

    Example:
        espalier capacity show gold
    """
    from espalier.registry.reservations import get_reservation

    return _view(get_reservation(context.store, request.name), "active")


class ReleaseCapacity(Spec):
    """Which reservation, and whether its commitment is broken."""

    name: str = Field(description="the reservation's name")
    force: bool = Field(False, description="release a committed one before its end; an admin's word")
    reason: str = Field("", description="for the audit log")


@operation("capacity.release", "POST /v1/capacity/{name}/release", positional=("name",), role="approver")
def release(context: Context, request: ReleaseCapacity) -> ReservationView:
    """Release a reservation: what it held is everybody's again. A committed one ends by itself, or by --force.

    Example:
        espalier capacity release support
    """
    from espalier.registry.reservations import release_reservation

    context.require("approver")
    if request.force and not context.principal.may("admin"):
        raise PermissionDenied("a commitment is broken by an admin only", hint="leave --force out, or ask an admin")
    gone = release_reservation(
        context.store, request.name, actor=context.actor, force=request.force, reason=request.reason
    )  # fmt: skip
    return _view(gone, "ended")


class MeasureCapacity(Spec):
    """Which base, and how long."""

    model: str = Field(description="a base, or a model whose base is meant, e.g. builtin:seedling")
    seconds: float = Field(10.0, ge=1, le=600, description="how long to measure; the machine should be idle meanwhile")


@operation("capacity.measure", "POST /v1/capacity/measure", positional=("model",), role="admin")
def measure(context: Context, request: MeasureCapacity) -> MeasuredCapacity:
    """Measure what an engine of a base does in a minute with all slots busy: what reservations may add up to.

    Example:
        espalier capacity measure builtin:seedling
    """
    import platform

    from espalier.core.ids import now_ms
    from espalier.gateway.route import find_target
    from espalier.nn.base import load_base
    from espalier.registry.reservations import put_measured
    from espalier.serve.engine import Engine
    from espalier.serve.measure import measure_engine
    from espalier.services.bases import place_base
    from espalier.services.resolver import RegistryResolver

    context.require("admin")
    serve = context.config.config.serve
    base = find_target(RegistryResolver(context.store, serve), request.model).base
    loaded = load_base(place_base(context.store, base), threads=serve.threads, fetch=False)
    found = measure_engine(Engine(loaded, serve), serve.max_batch, request.seconds)
    measured = MeasuredCapacity(
        base=base,
        tokens_per_minute=found.tokens_per_minute,
        slots=serve.max_batch,
        prompt_tokens=found.prompt_tokens,
        answer_tokens=found.answer_tokens,
        seconds=round(found.seconds, 2),
        machine=f"{platform.node()} {platform.machine()}",
        at_ms=now_ms(),
        actor=context.actor,
    )
    put_measured(context.store, measured)
    return measured


def _most_tokens_per_minute(context: Context, base: str) -> int:
    from espalier.registry.reservations import find_measured

    configured = context.config.config.serve.sharing.capacity_tokens_per_minute
    if configured:
        return configured
    measured = find_measured(context.store, base)
    if measured is None:
        raise InvalidInput(
            f"nobody knows how many tokens a minute {base} gives here",
            hint=f"`espalier capacity measure {base}`, or set serve.sharing.capacity_tokens_per_minute",
        )
    return measured.tokens_per_minute


def _view(held: Reservation, state: State) -> ReservationView:
    return ReservationView(**held.model_dump(), asked_as=f"provisioned:{held.name}", state=state)
