"""Reservations as the registry keeps them: each a record, a pointer that says whether it is in force, audit events.

Whether capacity is left is decided in the same transaction that takes it: two who reserve at once cannot both have
the last of it. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from espalier.core.errors import Conflict, InvalidInput, NotFound, did_you_mean
from espalier.core.ids import now_ms
from espalier.core.refs import Ref
from espalier.core.types.capacity import MeasuredCapacity, Reservation
from espalier.registry.versions import check_actor
from espalier.store.store import Store

KIND, MEASURED = "reservation", "capacity"
_RELEASED = "released"
_BOOK = "reservations"  # every change of any reservation moves this pointer


def list_reservations(store: Store, *, at_ms: int | None = None) -> Sequence[Reservation]:
    """What is in force at `at_ms` (now), the oldest first."""
    at_ms = now_ms() if at_ms is None else at_ms
    held = [
        store.records.get(KIND, pointer.target, Reservation)
        for pointer in store.records.list_pointers(f"{KIND}:")
        if pointer.target != _RELEASED
    ]
    return sorted((each for each in held if each.is_active(at_ms)), key=lambda each: (each.created_ms, each.name))


def list_past(store: Store, limit: int = 100) -> Sequence[Reservation]:
    """What was ever reserved, the newest first."""
    return store.records.list(KIND, Reservation, limit)


def get_reservation(store: Store, name: str) -> Reservation:
    """The one of that name in force. Raises NotFound, with the nearest name there is."""
    held = {each.name: each for each in list_reservations(store)}
    if name not in held:
        raise NotFound(
            f"no reservation {name} is in force", hint=did_you_mean(name, held) or "`espalier capacity list`"
        )
    return held[name]


def read_revision(store: Store) -> int:
    """Counts every change of any reservation: who has seen this number has seen them all."""
    pointer = store.records.find_pointer(_BOOK)
    return pointer.revision if pointer else 0


def add_reservation(store: Store, wanted: Reservation, *, most_slots: int, most_tokens_per_minute: int) -> Reservation:
    """Hold it, if what is held on its base already leaves room.

    Raises InvalidInput for a name that is no name, Conflict for one in force, and for more than there is.
    """
    Ref.parse(wanted.name, kind=KIND)
    who = check_actor(wanted.actor)
    seen = read_revision(store)
    with store.transaction():
        pointer = store.records.find_pointer(f"{KIND}:{wanted.name}")
        others = list_reservations(store)
        if any(each.name == wanted.name for each in others):
            raise Conflict(f"reservation {wanted.name} is in force", hint="release it first, or choose another --name")
        _check_room([each for each in others if each.base == wanted.base], wanted, most_slots, most_tokens_per_minute)
        id = f"{wanted.name}#{pointer.revision + 1 if pointer else 1}"
        store.records.put(KIND, id, wanted)
        expect = pointer.target if pointer else None
        store.records.set_pointer(f"{KIND}:{wanted.name}", id, expect=expect, actor=who)
        store.records.set_pointer(_BOOK, str(seen + 1), expect=str(seen) if seen else None, actor=who)
        fields = {"model", "base", "model_units", "slots", "tokens_per_minute", "term", "expires_ms"}
        store.audit.append(who, "capacity.reserve", f"{KIND}:{wanted.name}", wanted.model_dump(include=fields))
    return wanted


def release_reservation(store: Store, name: str, *, actor: str, force: bool = False, reason: str = "") -> Reservation:
    """Let it go. A committed term ends by itself: before, only `force` ends it, and the audit log says so.

    Raises NotFound, Conflict.
    """
    who, held = check_actor(actor), get_reservation(store, name)
    early = held.term != "none"
    if early and not force:
        days = (held.expires_ms - now_ms()) / 86_400_000
        raise Conflict(
            f"reservation {name} is committed for {days:.1f} more days",
            hint="wait for its end, or have an admin release it with --force",
        )
    seen = read_revision(store)
    with store.transaction():
        pointer = store.records.get_pointer(f"{KIND}:{name}")
        store.records.set_pointer(f"{KIND}:{name}", _RELEASED, expect=pointer.target, actor=who)
        store.records.set_pointer(_BOOK, str(seen + 1), expect=str(seen) if seen else None, actor=who)
        detail = {"forced": early, "reason": reason, "term": held.term}
        store.audit.append(who, "capacity.release", f"{KIND}:{name}", detail)
    return held


def put_measured(store: Store, measured: MeasuredCapacity) -> None:
    """The last measurement of a base is the one that counts."""
    with store.transaction():
        number = store.records.next_version(MEASURED, measured.base)
        store.records.put(MEASURED, f"{measured.base}#{number}", measured)
        store.records.set_pointer(f"{MEASURED}:{measured.base}", str(number), actor=measured.actor)
        detail = {"tokens_per_minute": measured.tokens_per_minute, "slots": measured.slots}
        store.audit.append(measured.actor, "capacity.measure", measured.base, detail)


def find_measured(store: Store, base: str) -> MeasuredCapacity | None:
    """The last measurement, or None."""
    pointer = store.records.find_pointer(f"{MEASURED}:{base}")
    return None if pointer is None else store.records.get(MEASURED, f"{base}#{pointer.target}", MeasuredCapacity)


def _check_room(held: Sequence[Reservation], wanted: Reservation, most_slots: int, most_tokens: int) -> None:
    slots, tokens = sum(each.slots for each in held), sum(each.tokens_per_minute for each in held)
    if wanted.slots < 1 or wanted.tokens_per_minute < 1:
        raise InvalidInput("a reservation holds at least one slot and one token a minute")
    if slots + wanted.slots >= most_slots:
        left = most_slots - 1 - slots
        raise Conflict(
            f"{wanted.slots} slots are wanted, {max(left, 0)} of {most_slots} on {wanted.base} can still be reserved",
            hint="one stays for requests on demand; release another reservation, or raise serve.max_batch",
        )
    if tokens + wanted.tokens_per_minute > most_tokens:
        raise Conflict(
            f"{wanted.tokens_per_minute} tokens a minute are wanted, {max(most_tokens - tokens, 0)} of {most_tokens} "
            f"on {wanted.base} can still be reserved",
            hint="reserve less, or measure again: `espalier capacity measure`",
        )
