"""Steps: a versioned function with declared ports."""

from __future__ import annotations

import pytest

from espalier.core.errors import InvalidInput
from espalier.core.ports import StepContext
from espalier.core.step import check_ports, step
from espalier.core.types import Spec


class Nothing(Spec):
    pass


@step("test.copy", version=3, spec=Nothing, inputs={"dataset": "dataset", "base": "base?"}, outputs={"copy": "dataset"})
def copy(context: StepContext, spec: Nothing) -> None:
    """Copy a dataset."""


def test_the_decorated_name_is_the_step() -> None:
    assert (copy.id, copy.summary) == ("test.copy@3", "Copy a dataset.")


def test_an_optional_input_may_be_missing_and_a_needed_one_may_not() -> None:
    check_ports(copy, ["dataset"])
    check_ports(copy, ["dataset", "base"])
    with pytest.raises(InvalidInput, match="needs input 'dataset'"):
        check_ports(copy, ["base"])


def test_an_unknown_input_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InvalidInput, match="did you mean `dataset`"):
        check_ports(copy, ["datset"])
