"""The operations table: one declaration, read by every face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from espalier.core import operations
from espalier.core.errors import NotFound
from espalier.core.types import Spec

if TYPE_CHECKING:
    from nowhere import Context  # type: ignore[import-not-found]  # a service's context is never imported to read the table


class Greet(Spec):
    name: str


class Greeting(Spec):
    text: str


def greet(context: Context, request: Greet) -> Greeting:
    """Say hello.

    At length.
    """
    return Greeting(text=f"hello {request.name}")


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_TABLE", {})
    monkeypatch.setattr(operations, "find_plugins", lambda group: {})


def test_a_declared_function_stays_callable_and_enters_the_table() -> None:
    declared = operations.operation("people.greet", "POST /v1/greet", positional=("name",))(greet)
    found = operations.find_operation("people.greet")
    assert declared(None, Greet(name="Ada")).text == "hello Ada"
    assert (found.noun, found.verb, found.summary) == ("people", "greet", "Say hello.")
    assert (found.request, found.response) == (Greet, Greeting)


def test_a_misspelt_operation_is_suggested() -> None:
    operations.operation("people.greet", "POST /v1/greet")(greet)
    with pytest.raises(NotFound, match=r"did you mean `people\.greet`"):
        operations.find_operation("people.gret")
