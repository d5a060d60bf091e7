from __future__ import annotations

import threading
from typing import Any

import pytest

from espalier.core.errors import Conflict, InvalidInput, NotFound
from espalier.registry.aliases import AliasMove, find_alias, list_aliases, list_moves, promote, rollback
from espalier.registry.versions import get_version
from espalier.store.store import Store


def test_an_alias_names_the_version_it_was_promoted_to(store: Store, make: Any) -> None:
    first, second = make.approved("w1"), make.approved("w2")
    promote(store, first.ref, "production", actor="bob")
    assert get_version(store, "model:support@production") == first
    promote(store, second.ref, "production", actor="bob")
    promote(store, first.ref, "staging", actor="bob")
    assert get_version(store, "support@production") == second
    assert {move.alias: move.version for move in list_aliases(store, "support")} == {"production": 2, "staging": 1}


def test_only_an_approved_version_is_promoted(store: Store, make: Any) -> None:
    with pytest.raises(Conflict, match="PendingManualApproval"):
        promote(store, make.version().ref, "production", actor="bob")
    assert find_alias(store, "support", "production") is None


def test_rolling_back_twice_goes_back_two_promotions(store: Store, make: Any) -> None:
    versions = [make.approved(f"w{i}") for i in range(3)]
    for version in versions:
        promote(store, version.ref, "production", actor="bob")
    assert rollback(store, "support", "production", actor="cat").version == 2
    assert rollback(store, "support", "production", actor="cat").version == 1
    with pytest.raises(Conflict, match="nothing before"):
        rollback(store, "support", "production", actor="cat")
    assert [(move.version, move.action) for move in list_moves(store, "support", "production")] == [
        (1, "rollback"), (2, "rollback"), (3, "promote"), (2, "promote"), (1, "promote"),
    ]  # fmt: skip
    promote(store, versions[2].ref, "production", actor="bob")
    assert rollback(store, "support", "production", actor="cat").version == 1
    assert store.audit.list()[0].action == "models.rollback"


def test_promoting_what_is_there_changes_nothing(store: Store, make: Any) -> None:
    version = make.approved("w1")
    first = promote(store, version.ref, "production", actor="bob")
    events = len(store.audit.list())
    assert promote(store, version.ref, "production", actor="cat") == first
    assert len(store.audit.list()) == events


def test_a_promotion_that_expected_another_state_is_refused(store: Store, make: Any) -> None:
    first, second = make.approved("w1"), make.approved("w2")
    promote(store, first.ref, "production", actor="bob", expect=None)
    for expect in (None, "v2"):
        with pytest.raises(Conflict, match="points to v1"):
            promote(store, second.ref, "production", actor="bob", expect=expect)
    assert promote(store, second.ref, "production", actor="bob", expect="v1").version == 2


@pytest.mark.parametrize("alias", ["latest", "v2", "Prod", "", "sha256:" + "0" * 64])
def test_some_words_cannot_be_aliases(store: Store, make: Any, alias: str) -> None:
    with pytest.raises(InvalidInput):
        promote(store, make.approved("w1").ref, alias, actor="bob")


def test_an_alias_that_is_not_there_cannot_be_rolled_back(store: Store, make: Any) -> None:
    make.approved("w1")
    with pytest.raises(NotFound, match="no alias production"):
        rollback(store, "support", "production", actor="bob")


def test_of_promotions_at_once_each_builds_on_the_one_before_or_conflicts(store: Store, make: Any) -> None:
    refs = [make.approved(f"w{i}").ref for i in range(6)]
    gate = threading.Barrier(6)
    moves: list[AliasMove] = []
    conflicts: list[str] = []

    def work(ref: str) -> None:
        gate.wait()
        try:
            moves.append(promote(store, ref, "production", actor="bob"))
        except Conflict as error:
            conflicts.append(error.message)

    threads = [threading.Thread(target=work, args=(ref,)) for ref in refs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moves and len(moves) + len(conflicts) == 6
    history = list_moves(store, "support", "production")
    assert [move.revision for move in history] == list(range(len(moves), 0, -1))
    assert all(move.below == move.revision - 1 for move in history)


def test_an_alias_that_left_and_came_back_has_moved(store: Store, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make.approved("w1"), make.approved("w2")
    stale = promote(store, first.ref, "production", actor="bob")
    promote(store, second.ref, "production", actor="cat")
    back = rollback(store, "support", "production", actor="cat")
    with monkeypatch.context() as patch:  # what someone saw before the two moves
        patch.setattr("espalier.registry.aliases.find_alias", lambda *_: stale)
        with pytest.raises(Conflict, match="moved meanwhile"):
            promote(store, second.ref, "production", actor="bob")
    assert find_alias(store, "support", "production") == back
