"""`TaskSpec`: what a recipe's `task` may be, one spec for each plug-in of the group `espalier.tasks`."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from espalier.core.plugins import find_plugins
from espalier.core.types import Spec
from espalier.data.tasks.task import GROUP, find_kind


def list_specs() -> dict[str, type[Spec]]:
    """The spec of every kind of task, by its name."""
    return {name: find_kind(name).spec for name in sorted(find_plugins(GROUP))}


def _unite(specs: dict[str, type[Spec]]) -> Any:
    return Annotated[functools.reduce(operator.or_, specs.values()), Field(discriminator="kind")]


if TYPE_CHECKING:
    TaskSpec = Spec
else:
    TaskSpec = _unite(list_specs())
