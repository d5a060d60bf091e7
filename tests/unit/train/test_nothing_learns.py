"""A recipe in which nothing would learn is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.train.conftest import Train

from espalier.core.errors import InvalidInput
from espalier.train.recipe import SftSpec


def test_a_method_without_a_head_cannot_train_its_head_alone(train: Train, dataset: Path) -> None:
    with pytest.raises(InvalidInput, match="sft has no head, so with tune: head nothing would learn"):
        train(dataset, SftSpec(tune="head"))
