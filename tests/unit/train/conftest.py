"""A random base of two layers and a dataset of made-up questions, for every training test."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier.core.types import Example, Message
from espalier.store.examples import write_examples
from espalier.testing.tiny import make_tiny_base


def make_examples(count: int, split: str = "train") -> list[Example]:
    """Questions whose answer is in the question, of many lengths."""
    return [
        Example(
            id=f"{split}-{n}",
            messages=[
                Message("user", f"Give the code. {'The fox is quick. ' * (n % 5)}The code is {n:03d}."),
                Message("assistant", f"<code>{n:03d}</code>"),
            ],
            split=split,  # type: ignore[arg-type]
        )
        for n in range(count)
    ]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny", seed=1)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_examples(tmp_path / "dataset" / "data" / "train-00000.parquet", make_examples(40))
    write_examples(tmp_path / "dataset" / "data" / "validation-00000.parquet", make_examples(6, "validation"))
    return tmp_path / "dataset"
