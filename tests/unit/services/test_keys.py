from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import PermissionDenied, Unauthenticated
from espalier.core.types import Principal
from espalier.gateway.keys import KeyRing
from espalier.services.context import Context, open_context
from espalier.services.dispatch import call_operation
from espalier.store.workspace import init_workspace

OWNER = Principal(actor="ada", role="admin")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path)
    opened = open_context(tmp_path)
    yield opened
    opened.close()


def bearer(context: Context, secret: str) -> Principal:
    return KeyRing(context.store).authenticate(secret).principal


@pytest.mark.parametrize("role", ["user", "approver"])
def test_a_key_cannot_make_itself_another_with_a_budget_of_its_own(role: str, context: Context) -> None:
    made = call_operation(context, OWNER, "keys.create", {"name": "app", "role": role})
    with pytest.raises(PermissionDenied):
        call_operation(context, bearer(context, made.secret), "keys.create", {"name": "more", "budget_usd": "1000"})


def test_a_new_key_has_the_house_s_budget_unless_told_otherwise(context: Context) -> None:
    call_operation(context, OWNER, "keys.create", {"name": "app"})
    call_operation(context, OWNER, "keys.create", {"name": "big", "budget_usd": "25"})
    listed = call_operation(context, OWNER, "keys.list", {})
    assert [(key.name, key.left_nusd) for key in listed] == [("big", 25 * 10**9), ("app", 10 * 10**9)]


def test_a_loan_over_http_draws_on_the_borrower_s_own_key_and_ends_with_it(context: Context) -> None:
    made = call_operation(context, OWNER, "keys.create", {"name": "app", "actor": "grace", "role": "approver"})
    loan = call_operation(context, bearer(context, made.secret), "keys.lend", {"minutes": 5})
    borrowed = KeyRing(context.store).authenticate(loan.secret)
    assert (borrowed.actor, borrowed.role, borrowed.payer) == ("grace", "user", made.id)
    call_operation(context, OWNER, "keys.revoke", {"id": "app"})
    with pytest.raises(Unauthenticated):
        KeyRing(context.store).authenticate(loan.secret)


def test_revoking_says_what_was_revoked_be_it_a_key_or_a_loan(context: Context) -> None:
    loan = call_operation(context, OWNER, "keys.lend", {"minutes": 5})
    assert call_operation(context, OWNER, "keys.revoke", {"id": loan.id}).revoked
