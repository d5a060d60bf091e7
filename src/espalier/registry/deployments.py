"""Deployments as the registry keeps them: revisions that never change, a pointer to the one in force, the way back.

Only approved versions are named. Every change is one transaction with its audit event, and compare-and-set makes two
who change the same deployment see each other: people, and the canary's own steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from espalier.core.errors import Conflict, InvalidInput, NotFound, did_you_mean
from espalier.core.ids import now_ms
from espalier.core.refs import Ref
from espalier.core.types import Deployment
from espalier.registry.versions import check_actor, get_version
from espalier.store.store import Store

KIND = "deployment"
_NONE = "none"  # where the pointer of a removed deployment points


def find_deployment(store: Store, name: str) -> Deployment | None:
    """The revision in force, or None."""
    pointer = store.records.find_pointer(_pointer(name))
    return None if pointer is None or pointer.target == _NONE else read_revision(store, name, int(pointer.target))


def get_deployment(store: Store, name: str) -> Deployment:
    """Raises NotFound, with the nearest name there is."""
    found = find_deployment(store, name)
    if found is None:
        known = [each.name for each in list_deployments(store)]
        raise NotFound(
            f"no deployment {name}", hint=did_you_mean(name, known) or "`espalier deployments split` makes one"
        )
    return found


def read_revision(store: Store, name: str, revision: int) -> Deployment:
    """Raises NotFound."""
    return store.records.get(KIND, f"{name}#{revision}", Deployment)


def list_deployments(store: Store) -> Sequence[Deployment]:
    """What is in force, by name."""
    return [
        read_revision(store, pointer.name.removeprefix(f"{KIND}:"), int(pointer.target))
        for pointer in store.records.list_pointers(f"{KIND}:")
        if pointer.target != _NONE
    ]


def list_revisions(store: Store, name: str) -> Sequence[Deployment]:
    """Every revision, the newest first."""
    pointers = store.records.pointer_history(_pointer(name))
    return [read_revision(store, name, int(pointer.target)) for pointer in pointers if pointer.target != _NONE]


def change_deployment(
    store: Store, name: str, *, actor: str, action: str, before: Deployment | None, **said: Any
) -> Deployment:
    """The next revision: what `before` says, with `said` in place of it.

    `below` is what a roll-back goes back to: the last revision without a canary. Raises InvalidInput for a name that is
    no name, NotFound and Conflict for versions that may not serve, Conflict when the deployment changed meanwhile.
    """
    who = check_actor(actor)
    if Ref.parse(name, kind=KIND).name != name:
        raise InvalidInput(f"{name!r} names a version or a kind", hint="a deployment has a plain name, e.g. support")
    known = {} if before is None else before.model_dump(include={"variants", "canary", "shadows", "below"})
    pointer = store.records.find_pointer(_pointer(name))
    revision = pointer.revision + 1 if pointer else 1
    fields = {"below": 0, **known, **said}
    body = Deployment.model_validate(
        {**fields, "name": name, "revision": revision, "action": action, "actor": who, "at_ms": now_ms()}
    )
    _check(store, body)
    with store.transaction():
        expect = str(before.revision) if before else (_NONE if pointer else None)
        moved = store.records.set_pointer(_pointer(name), str(revision), expect=expect, actor=who)
        if moved.revision != revision:  # it went away and came back meanwhile
            raise Conflict(f"deployment {name} was changed meanwhile", hint="look at it and try again")
        store.records.put(KIND, f"{name}#{revision}", body)
        detail = body.model_dump(mode="json", include={"revision", "variants", "canary", "shadows", "reason"})
        store.audit.append(who, f"deployments.{action}", f"{KIND}:{name}", detail)
    return body


def rollback_deployment(
    store: Store, name: str, *, actor: str, reason: str = "", expect: int | None = None
) -> Deployment:
    """Back to what answered before the last change of who answers; `expect` is the revision the caller saw.

    Raises NotFound, Conflict for nothing before or another revision.
    """
    now = get_deployment(store, name)
    if expect is not None and now.revision != expect:
        raise Conflict(f"deployment {name} was changed meanwhile", hint="look at it and try again")
    if not now.below:
        raise Conflict(f"deployment {name} was never otherwise", hint="`espalier deployments split` changes it")
    target = read_revision(store, name, now.below)
    return change_deployment(
        store, name, actor=actor, action="rollback", before=now, variants=target.variants, canary=None,
        below=target.below, reason=reason,
    )  # fmt: skip


def remove_deployment(store: Store, name: str, *, actor: str) -> None:
    """Its name means the model's `production` alias again, or nothing. Raises NotFound."""
    who, now = check_actor(actor), get_deployment(store, name)
    with store.transaction():
        store.records.set_pointer(_pointer(name), _NONE, expect=str(now.revision), actor=who)
        store.audit.append(who, "deployments.remove", f"{KIND}:{name}", {"revision": now.revision})


def _check(store: Store, body: Deployment) -> None:
    asked = [variant.model for variant in body.variants]
    asked += [body.canary.candidate] if body.canary else []
    if not body.variants:
        raise InvalidInput(f"deployment {body.name} names no version", hint="give at least one variant")
    if len(set(asked)) < len(asked):
        raise InvalidInput(f"deployment {body.name} names a version twice", hint="add their weights up")
    for ref in [*asked, *(shadow.model for shadow in body.shadows)]:
        version = get_version(store, ref)
        if version.status != "Approved":
            raise Conflict(
                f"{version.ref} is {version.status}; only an approved version answers",
                hint=f"espalier models approve {version.ref}",
            )


def _pointer(name: str) -> str:
    return f"{KIND}:{name}"
