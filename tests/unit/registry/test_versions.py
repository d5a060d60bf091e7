from __future__ import annotations

from typing import Any

import pytest

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound
from espalier.registry.versions import get_version, list_models, list_versions, register
from espalier.store.store import Store


def test_a_registered_version_is_numbered_pending_and_audited(store: Store, make: Any) -> None:
    first, second = make.version("w1"), make.version("w2")
    assert (first.ref, second.ref) == ("model:support@v1", "model:support@v2")
    assert first.status == "PendingManualApproval"
    assert first.submitted_by == "ann"
    assert [event.action for event in store.audit.list(subject=second.ref)] == ["models.register"]


def test_the_same_parts_are_the_same_version_whatever_run_made_them(store: Store, make: Any) -> None:
    parts = make.registration(run="run_1", description="one")
    first = register(store, parts, actor="ann")
    again = register(store, parts.model_copy(update={"run": "run_2", "description": "two"}), actor="bob")
    assert again == first
    assert len(store.audit.list()) == 1


def test_a_version_is_found_by_number_digest_and_as_the_latest(store: Store, make: Any) -> None:
    first, second = make.version("w1"), make.version("w2")
    assert get_version(store, "model:support@v1") == first
    assert get_version(store, "support") == second
    assert [version.version for version in list_versions(store, "support")] == [2, 1]
    make.version("w3", name="billing")
    assert [version.ref for version in list_models(store)] == ["model:billing@v1", "model:support@v2"]


def test_what_is_not_there_is_said_with_what_is(store: Store, make: Any) -> None:
    make.version()
    for ref, hint in (("suport", "support"), ("support@prod", "latest"), ("support@v2", "support@v1")):
        with pytest.raises(NotFound) as caught:
            get_version(store, ref)
        assert hint in caught.value.hint


def test_a_part_that_the_store_does_not_hold_is_refused(store: Store, make: Any) -> None:
    good = make.registration()
    for change in ({"adapter": "a" * 64}, {"dataset": "a" * 64}, {"prompt": "a" * 64}, {"reports": ("a" * 64,)}):
        with pytest.raises(NotFound, match="aaaaaaaaaaaa"):
            register(store, good.model_copy(update=change), actor="ann")
    with pytest.raises(InvalidInput, match="is a report, not a dataset"):
        register(store, good.model_copy(update={"dataset": good.reports[0]}), actor="ann")
    with pytest.raises(InvalidInput, match="no digest"):
        register(store, good.model_copy(update={"base_digest": ""}), actor="ann")
    assert not list_models(store)


def test_an_adapter_of_another_base_is_refused(store: Store, make: Any) -> None:
    with pytest.raises(DigestMismatch, match="was trained on base cccccccccccc"):
        register(store, make.registration(adapter=make.adapter(base="c" * 64)), actor="ann")


def test_an_adapter_that_does_not_say_its_base_is_refused(store: Store, make: Any) -> None:
    with pytest.raises(InvalidInput, match="does not say which base"):
        register(store, make.registration(adapter=make.artifact("adapter", adapter_model_bin="w")), actor="ann")


def test_a_base_alone_can_be_registered(store: Store, make: Any) -> None:
    parts = make.registration().model_copy(update={"adapter": "", "reports": ()})
    assert register(store, parts, actor="ann").adapter == ""


def test_nobody_is_not_an_actor(store: Store, make: Any) -> None:
    with pytest.raises(InvalidInput, match="nobody"):
        register(store, make.registration(), actor=" ")
