from __future__ import annotations

from typing import Any

import pytest

from espalier.core.errors import Conflict, InvalidInput, NotFound
from espalier.core.types import Canary, Deployment, Variant
from espalier.registry.deployments import (
    change_deployment,
    find_deployment,
    get_deployment,
    list_deployments,
    list_revisions,
    remove_deployment,
    rollback_deployment,
)
from espalier.store.store import Store


def split(store: Store, *refs: str, before: Deployment | None = None, **said: object) -> Deployment:
    variants = tuple(Variant(model=ref) for ref in refs)
    return change_deployment(
        store, "support", actor="ann", action="split", before=before, variants=variants, **said
    )  # fmt: skip


def test_a_deployment_is_what_its_last_change_says_and_every_change_is_kept(store: Store, make: Any) -> None:
    one, two = make.approved("1").ref, make.approved("2").ref
    first = split(store, one)
    second = split(store, one, two, before=first, below=first.revision)
    assert get_deployment(store, "support") == second
    assert [revision.revision for revision in list_revisions(store, "support")] == [2, 1]
    assert [event.action for event in store.audit.list() if "deploy" in event.action] == ["deployments.split"] * 2


def test_only_approved_versions_answer(store: Store, make: Any) -> None:
    pending = make.version("1").ref
    with pytest.raises(Conflict, match="only an approved version answers"):
        split(store, pending)
    assert find_deployment(store, "support") is None


def test_two_who_change_a_deployment_at_once_see_each_other(store: Store, make: Any) -> None:
    one, two = make.approved("1").ref, make.approved("2").ref
    seen = split(store, one)
    split(store, two, before=seen)
    with pytest.raises(Conflict):
        split(store, one, two, before=seen)
    assert [variant.model for variant in get_deployment(store, "support").variants] == [two]


def test_a_rollback_goes_back_to_what_answered_before_and_takes_a_canary_with_it(store: Store, make: Any) -> None:
    one, two, three = (make.approved(weights).ref for weights in "123")
    first = split(store, one)
    second = split(store, two, before=first, below=first.revision)
    under_way = change_deployment(
        store, "support", actor="ann", action="canary", before=second, canary=Canary(candidate=three),
        below=second.revision,
    )  # fmt: skip
    assert under_way.canary is not None
    back = rollback_deployment(store, "support", actor="ann", reason="wrong tone")
    assert (back.canary, back.reason, [variant.model for variant in back.variants]) == (None, "wrong tone", [two])
    assert [variant.model for variant in rollback_deployment(store, "support", actor="ann").variants] == [one]
    with pytest.raises(Conflict):
        rollback_deployment(store, "support", actor="ann")


def test_a_version_named_twice_and_a_name_that_is_none_are_refused(store: Store, make: Any) -> None:
    one = make.approved("1").ref
    with pytest.raises(InvalidInput, match="twice"):
        split(store, one, one)
    for name in ("Su pport", "support@v1", "support@production", "deployment:support"):
        with pytest.raises(InvalidInput, match=r"not a name|names a version or a kind"):
            change_deployment(store, name, actor="ann", action="split", before=None, variants=(Variant(model=one),))
        assert find_deployment(store, name) is None


def test_a_removed_deployment_is_gone_its_history_stays_and_its_name_may_be_used_again(store: Store, make: Any) -> None:
    one = make.approved("1").ref
    split(store, one)
    remove_deployment(store, "support", actor="ann")
    assert find_deployment(store, "support") is None and not list_deployments(store)
    with pytest.raises(NotFound):
        get_deployment(store, "support")
    again = split(store, one)
    assert again.revision == 3
    assert [revision.revision for revision in list_revisions(store, "support")] == [3, 1]
