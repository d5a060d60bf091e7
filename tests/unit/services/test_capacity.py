"""Provisioned throughput as records: overbooking, terms, releases; how requests and engines hear of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from espalier.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from espalier.core.ports import ReservedShare
from espalier.core.types import Principal
from espalier.core.types.capacity import MeasuredCapacity
from espalier.gateway.route import ReservationTable, Target, resolve
from espalier.registry.reservations import list_reservations, put_measured
from espalier.services import capacity
from espalier.services.capacity import ListCapacity, ReleaseCapacity, ReserveCapacity, ShowCapacity
from espalier.services.capacitybook import CapacityBook, CapacityKeeper
from espalier.services.context import Context, open_context
from espalier.services.resolver import RegistryResolver
from espalier.store.workspace import init_workspace
from espalier.testing.resolver import FixedResolver

BASE = "builtin:seedling"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path / "project")
    overrides = ["serve.max_batch=8", "serve.sharing.capacity_tokens_per_minute=8000"]
    opened = open_context(tmp_path / "project", overrides, "ann")
    yield opened
    opened.close()


def reserve(context: Context, name: str = "", **fields: object) -> capacity.ReservationView:
    return capacity.reserve(context, ReserveCapacity.model_validate({"model": BASE, "name": name, **fields}))


def test_a_model_unit_is_one_slot_and_its_share_of_the_tokens_a_minute(context: Context) -> None:
    held = reserve(context, model_units=2)
    assert (held.name, held.slots, held.tokens_per_minute, held.expires_ms) == ("seedling", 2, 2000, 0)
    assert held.asked_as == "provisioned:seedling"
    assert (
        capacity.list_all(context, ListCapacity()) == [held] == [capacity.show(context, ShowCapacity(name=held.name))]
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"slots": 5, "tokens_per_minute": 10}, "4 of 8"), ({"slots": 1, "tokens_per_minute": 7001}, "7000 of 8000")],
)
def test_more_than_there_is_cannot_be_reserved(context: Context, fields: dict[str, int], says: str) -> None:
    reserve(context, "first", slots=3, tokens_per_minute=1000)
    with pytest.raises(Conflict, match=says):
        reserve(context, "second", **fields)
    assert [each.name for each in list_reservations(context.store)] == ["first"]


def test_a_name_in_force_is_not_given_twice_and_is_free_again_when_released(context: Context) -> None:
    reserve(context, "gold")
    with pytest.raises(Conflict, match="in force"):
        reserve(context, "gold")
    capacity.release(context, ReleaseCapacity(name="gold"))
    with pytest.raises(NotFound):
        capacity.show(context, ShowCapacity(name="gold"))
    reserve(context, "gold", model_units=3)
    assert capacity.show(context, ShowCapacity(name="gold")).model_units == 3
    ended = [each.model_units for each in capacity.list_all(context, ListCapacity(ended=True)) if each.state == "ended"]
    assert ended == [1]


def test_a_committed_term_ends_by_itself_or_by_an_admins_force_with_an_audit_event(context: Context) -> None:
    held = reserve(context, "gold", term="month")
    with pytest.raises(Conflict, match=r"30\.0 more days"):
        capacity.release(context, ReleaseCapacity(name="gold"))
    approver = context.acting_as(Principal(actor="bob", role="approver"))
    with pytest.raises(PermissionDenied):
        capacity.release(approver, ReleaseCapacity(name="gold", force=True))
    assert list_reservations(context.store, at_ms=held.expires_ms - 1)
    assert not list_reservations(context.store, at_ms=held.expires_ms)
    capacity.release(context, ReleaseCapacity(name="gold", force=True, reason="the customer left"))
    event = context.store.audit.list(limit=1)[0]
    assert (event.action, event.actor, event.detail["forced"]) == ("capacity.release", "ann", True)
    context.store.audit.verify()


def test_only_an_approver_may_reserve(context: Context) -> None:
    with pytest.raises(PermissionDenied):
        reserve(context.acting_as(Principal(actor="eve", role="user")))


def test_without_a_measurement_or_a_setting_nothing_is_promised(tmp_path: Path) -> None:
    init_workspace(tmp_path / "project")
    context = open_context(tmp_path / "project", [], "ann")
    with pytest.raises(InvalidInput, match="tokens a minute") as caught:
        reserve(context)
    assert "capacity measure" in caught.value.hint
    measured = MeasuredCapacity(
        base=BASE, tokens_per_minute=32_000, slots=32, prompt_tokens=50, answer_tokens=50, seconds=5.0, machine="m",
        at_ms=1, actor="ann",
    )  # fmt: skip
    put_measured(context.store, measured)
    assert reserve(context).tokens_per_minute == 1000
    context.close()


def test_what_is_reserved_is_found_by_requests_and_held_by_engines_within_a_look(context: Context) -> None:
    now_s = 0.0
    resolver = RegistryResolver(context.store, context.config.config.serve)
    book = CapacityBook(context.store, resolver, clock_s=lambda: now_s)
    held: list[Mapping[str, Sequence[ReservedShare]]] = []
    keeper = CapacityKeeper(book, held.append)
    keeper.look()
    assert held == []
    reserve(context, "gold", slots=2, tokens_per_minute=600)
    now_s += 0.6
    keeper.look()
    keeper.look()
    assert held == [{BASE: [ReservedShare("gold", 2, 600)]}]
    assert book.table().find(resolver.find_base(BASE)) == "gold"
    capacity.release(context, ReleaseCapacity(name="gold"))
    now_s += 0.6
    keeper.look()
    assert held[-1] == {}
    assert book.table().find(resolver.find_base(BASE)) == ""


def test_what_could_not_be_held_is_tried_again(context: Context) -> None:
    now_s, tries = 0.0, 0

    def hold(shares: Mapping[str, Sequence[ReservedShare]]) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Conflict("the replica is starting")

    book = CapacityBook(
        context.store, RegistryResolver(context.store, context.config.config.serve), clock_s=lambda: now_s
    )
    keeper = CapacityKeeper(book, hold)
    reserve(context, "gold", slots=2, tokens_per_minute=600)
    with pytest.raises(Conflict):
        keeper.look()
    keeper.look()
    keeper.look()
    assert tries == 2


def test_a_request_finds_its_reservation_by_name_alias_version_or_the_reservations_own_name() -> None:
    one = Target("model:support@v1", BASE, "a" * 64)
    versions = {"support@production": one, "support@v1": one, "support@v2": Target("model:support@v2", BASE, "b" * 64)}
    resolver = FixedResolver(versions, {})
    resolver.reservations = ReservationTable({"model:support@v1": "gold"}, {"gold": "support@production"})
    for name in ("support", "support@production", "support@v1", "model:support@v1", "provisioned:gold"):
        target = resolve(resolver, name)
        assert (target.model, target.reservation) == ("model:support@v1", "gold")
    assert resolve(resolver, "support@v2").reservation == ""
    with pytest.raises(NotFound, match="no reservation") as caught:
        resolve(resolver, "provisioned:golden")
    assert "provisioned:gold" in caught.value.hint
