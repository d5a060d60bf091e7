"""Aliases such as `production`: which approved version a name means now, and the way back.

Each move is kept: a record for every revision of the alias's pointer. A promotion is put on top of what was there; a
rollback takes the top off, so rolling back twice goes back two promotions. Only an Approved version is ever named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from espalier.core.errors import Conflict, InvalidInput, NotFound
from espalier.core.refs import Ref
from espalier.core.types import ModelVersion, Spec
from espalier.registry.versions import KIND, check_actor, get_version, pointer_name
from espalier.store.records import ANY, Unset
from espalier.store.store import Store

MOVE = "alias-move"


class AliasMove(Spec):
    """`revision` counts the moves of the alias; `below` is the revision a rollback goes back to, 0 for none."""

    model: str
    alias: str
    version: int
    revision: int
    below: int
    action: Literal["promote", "rollback"]
    actor: str
    at_ms: int

    @property
    def ref(self) -> str:
        return f"{KIND}:{self.model}@v{self.version}"


def promote(store: Store, ref: str, alias: str, *, actor: str, expect: str | Unset | None = ANY) -> AliasMove:
    """Point `alias` at an approved version; nothing happens when it is there already.

    `expect` is where the caller saw it point ("v2", None for nowhere). Raises Conflict when it points elsewhere, moves
    meanwhile, or when the version is not approved; InvalidInput for a word that cannot be an alias.
    """
    who = check_actor(actor)
    version = get_version(store, ref)
    check_alias(version.name, alias)
    if version.status != "Approved":
        raise Conflict(
            f"{version.ref} is {version.status}; only an approved version is given an alias",
            hint=f"espalier models approve {version.ref}",
        )
    now = find_alias(store, version.name, alias)
    found = f"v{now.version}" if now else None
    if not isinstance(expect, Unset) and found != expect:
        raise _moved(version.name, alias, found)
    if now is not None and now.version == version.version:
        return now
    return _move(store, version, alias, now, now.revision if now else 0, "promote", who)


def rollback(store: Store, name: str, alias: str, *, actor: str) -> AliasMove:
    """Point `alias` back at what it named before the last promotion. Raises NotFound, Conflict for nothing before."""
    who = check_actor(actor)
    now = find_alias(store, name, alias)
    if now is None:
        raise NotFound(f"model {name} has no alias {alias}", hint="espalier models promote sets one")
    if not now.below:
        raise Conflict(f"{alias} of {name} named nothing before {now.ref}", hint="promote another version instead")
    target = _read_move(store, name, alias, now.below)
    version = get_version(store, target.ref)
    return _move(store, version, alias, now, target.below, "rollback", who)


def find_alias(store: Store, name: str, alias: str) -> AliasMove | None:
    """The move that put the alias where it is, or None."""
    pointer = store.records.find_pointer(pointer_name(name, alias))
    return _read_move(store, name, alias, pointer.revision) if pointer else None


def list_aliases(store: Store, name: str) -> Sequence[AliasMove]:
    """Where each alias of a model points now, by alias."""
    prefix = f"{KIND}:{name}@"
    pointers = [(pointer.name.removeprefix(prefix), pointer) for pointer in store.records.list_pointers(prefix)]
    return [_read_move(store, name, alias, pointer.revision) for alias, pointer in pointers if _is_alias(name, alias)]


def list_moves(store: Store, name: str, alias: str) -> Sequence[AliasMove]:
    """The whole history of an alias, the newest move first."""
    history = store.records.pointer_history(pointer_name(name, alias))
    return [_read_move(store, name, alias, pointer.revision) for pointer in history]


def check_alias(name: str, alias: str) -> None:
    """Raises InvalidInput for a word that cannot be an alias: a version, a digest, `latest`, or not a word at all."""
    if not _is_alias(name, alias):
        raise InvalidInput(f"{alias!r} cannot be an alias", hint="use a word such as production")


def _is_alias(name: str, alias: str) -> bool:
    parsed = Ref.parse(f"{KIND}:{name}@{alias}")
    return parsed.version is None and alias != "latest" and not alias.startswith("sha256:")


def _move(
    store: Store, version: ModelVersion, alias: str, now: AliasMove | None, below: int,
    action: Literal["promote", "rollback"], actor: str,
) -> AliasMove:  # fmt: skip
    target, pointer = f"v{version.version}", pointer_name(version.name, alias)
    found = f"v{now.version}" if now else None
    with store.transaction():
        moved = store.records.set_pointer(pointer, target, expect=found, actor=actor)
        if moved.revision != (now.revision if now else 0) + 1:  # it went away and came back meanwhile
            raise _moved(version.name, alias, found)
        move = AliasMove(
            model=version.name, alias=alias, version=version.version, revision=moved.revision, below=below,
            action=action, actor=actor, at_ms=moved.at_ms,
        )  # fmt: skip
        store.records.put(MOVE, _move_id(version.name, alias, moved.revision), move)
        store.audit.append(actor, f"models.{action}", version.ref, {"alias": alias, "from": found})
    return move


def _read_move(store: Store, name: str, alias: str, revision: int) -> AliasMove:
    return store.records.get(MOVE, _move_id(name, alias, revision), AliasMove)


def _move_id(name: str, alias: str, revision: int) -> str:
    return f"{name}@{alias}#{revision}"


def _moved(name: str, alias: str, found: str | None) -> Conflict:
    where = f"points to {found}" if found else "points nowhere"
    return Conflict(f"{alias} of {name} {where} or was moved meanwhile", hint="look at it and try again")
