from __future__ import annotations

import json
import logging

import pytest
from sqlalchemy import text

from espalier.core.errors import InvalidInput, NotFound, Unauthenticated
from espalier.gateway.keys import KeyRing
from espalier.store.store import Store


class Clock:
    now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(store: Store, clock: Clock) -> KeyRing:
    return KeyRing(store, clock)


def test_a_new_key_opens_the_door_as_the_identity_it_speaks_for(keys: KeyRing) -> None:
    new = keys.create("laptop", actor="ada", role="approver")
    principal = keys.authenticate(new.secret).principal
    assert (principal.actor, principal.role, principal.key) == ("ada", "approver", new.key.id)


def test_secrets_are_long_random_and_all_different(keys: KeyRing) -> None:
    secrets = {keys.create(f"key {number}").secret for number in range(20)}
    assert len(secrets) == 20
    assert all(secret.startswith("esp_") and len(secret) == 47 and secret[4:].isalnum() for secret in secrets)


def test_neither_the_secret_nor_more_of_it_than_its_id_is_stored_anywhere(keys: KeyRing, store: Store) -> None:
    new = keys.create("laptop", budget_nusd=5)
    keys.authenticate(new.secret)
    dump = ""
    with store.database.read() as connection:
        for (table,) in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).all():
            dump += repr(connection.execute(text(f'SELECT * FROM "{table}"')).all())
    assert new.key.id in dump
    assert new.secret[:13] not in dump


@pytest.mark.parametrize("where", ["repr", "json", "list", "logs"])
def test_a_secret_shows_in_no(where: str, keys: KeyRing, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    new = keys.create("laptop")
    wrong = new.secret[:-1] + ("a" if new.secret[-1] != "a" else "b")
    with pytest.raises(Unauthenticated) as refusal:
        keys.authenticate(wrong)
    shown = {
        "repr": repr(new),
        "json": new.key.model_dump_json(),
        "list": json.dumps([state.model_dump() for state in keys.list()]),
        "logs": caplog.text + str(refusal.value),
    }
    assert new.secret not in shown[where] and wrong not in shown[where] and new.secret[12:20] not in shown[where]


@pytest.mark.parametrize("change", ["last letter", "other case", "cut", "longer", "empty", "id only", "not ours", "ß"])
def test_what_is_not_the_very_secret_is_refused(change: str, keys: KeyRing) -> None:
    new = keys.create("laptop")
    secret = new.secret
    wrong = {
        "last letter": secret[:-1] + ("a" if secret[-1] != "a" else "b"),
        "other case": secret.swapcase(),
        "cut": secret[:-1],
        "longer": secret + "a",
        "empty": "",
        "id only": new.key.id,
        "not ours": "sk-" + "a" * 44,
        "ß": secret[:-1] + "ß",
    }
    with pytest.raises(Unauthenticated):
        keys.authenticate(wrong[change])


def test_a_revoked_key_is_refused_from_then_on_and_revoking_again_changes_nothing(keys: KeyRing, store: Store) -> None:
    new = keys.create("laptop")
    keys.revoke(new.key.id, actor="ada")
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.authenticate(new.secret)
    keys.revoke(new.key.id, actor="ada")
    assert [event.action for event in store.audit.list()].count("keys.revoke") == 1
    assert keys.list()[0].revoked


def test_a_key_may_be_revoked_by_its_name_when_only_one_live_key_has_it(keys: KeyRing) -> None:
    first, second = keys.create("laptop"), keys.create("laptop")
    with pytest.raises(InvalidInput, match="2 keys are called laptop"):
        keys.revoke("laptop")
    keys.revoke(first.key.id)
    assert keys.revoke("laptop").id == second.key.id
    with pytest.raises(NotFound):
        keys.revoke("laptop")


def test_a_key_is_refused_from_the_millisecond_it_expires(keys: KeyRing, clock: Clock) -> None:
    new = keys.create("visitor", lifetime_ms=500)
    clock.now_ms = 1_499
    keys.authenticate(new.secret)
    clock.now_ms = 1_500
    with pytest.raises(Unauthenticated, match="expired"):
        keys.authenticate(new.secret)


def test_a_key_with_a_budget_shows_what_is_left_and_one_without_shows_none(keys: KeyRing) -> None:
    keys.create("free")
    keys.create("bounded", budget_nusd=700)
    assert [(state.key.name, state.left_nusd) for state in keys.list()] == [("bounded", 700), ("free", None)]


def test_allowed_models_are_names_or_patterns(keys: KeyRing) -> None:
    key = keys.create("support team", models=("support*", "builtin:seedling")).key
    assert key.allows(["support@production"]) and key.allows(["builtin:seedling"])
    assert not key.allows(["sales", "model:sales@v1"])
    assert keys.create("all").key.allows(["anything"])


@pytest.mark.parametrize("name", ["", "  ", "x" * 65])
def test_a_key_needs_a_name_that_fits_a_list(name: str, keys: KeyRing) -> None:
    with pytest.raises(InvalidInput):
        keys.create(name)


def test_a_loan_asks_on_its_lender_s_account_and_gives_nothing_more(keys: KeyRing) -> None:
    lender = keys.create("app", actor="ada", role="admin", budget_nusd=700, models=("support*",)).key
    loan = keys.authenticate(keys.lend("ada", 1_000, lender=lender.id).secret)
    assert (loan.account, loan.payer, loan.budget_nusd) == (lender.account, lender.id, 700)
    assert (loan.role, loan.models, loan.actor) == ("user", ("support*",), "ada")
    again = keys.lend("ada", 1_000, lender=loan.id).key
    assert again.account == lender.account, "a loan of a loan is the first lender's"


def test_a_loan_ends_with_its_time_with_its_return_and_with_its_lender(keys: KeyRing, clock: Clock) -> None:
    lender = keys.create("app").key
    late, returned, orphaned = (keys.lend("ada", 1_000, lender=lender.id) for _ in range(3))
    keys.authenticate(orphaned.secret)
    keys.revoke(returned.key.id)
    clock.now_ms += 999
    keys.authenticate(late.secret)
    clock.now_ms += 1
    with pytest.raises(Unauthenticated, match="expired"):
        keys.authenticate(late.secret)
    clock.now_ms -= 1
    keys.revoke(lender.id)
    for gone in (returned, orphaned):
        with pytest.raises(Unauthenticated, match="revoked"):
            keys.authenticate(gone.secret)


def test_a_loan_to_the_owner_has_no_budget_and_no_list_shows_it(keys: KeyRing, store: Store) -> None:
    loan = keys.authenticate(keys.lend("ada", 1_000).secret)
    assert (loan.budget_nusd, loan.payer, loan.role) == (None, "owner", "user")
    assert keys.list() == []
