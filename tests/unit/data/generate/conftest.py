"""Askers of a scripted model, and prompts that show what they were filled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from espalier.core.ids import digest_of
from espalier.core.types import Message
from espalier.data.generate.asking import Asker, Spending
from espalier.data.generate.spec import BudgetSpec, ModelSpec
from espalier.data.generate.templates import PromptVersion
from espalier.store.journal import Journal


@pytest.fixture
def shown() -> PromptVersion:
    """A prompt whose message is the variables it was filled with."""

    def fill(variables: Mapping[str, str]) -> list[Message]:
        return [Message("user", "\n".join(f"{key}={value}" for key, value in sorted(variables.items())))]

    return PromptVersion("shown", 1, digest_of("shown"), fill)


@pytest.fixture
def make_asker() -> Callable[..., Asker]:
    def make(
        generate: Any, *, journal: Path | None = None, concurrency: int = 4, budget: BudgetSpec | None = None
    ) -> Asker:
        model = ModelSpec(endpoint="http://127.0.0.1:1/v1", model="m", concurrency=concurrency)
        return Asker(generate, model, journal=Journal(journal), spending=Spending(budget or BudgetSpec()))

    return make
