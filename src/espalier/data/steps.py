"""The cleaning steps a dataset recipe may name, and their order by default.

Each is a plug-in of the group `espalier.cleaners`, ours as anybody's: a name, a version, typed parameters, a function
over batches (`flow.step.CleanStep`).
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from espalier.core.plugins import find_plugins, load_plugin
from espalier.core.types import Spec
from espalier.data.flow.chain import GROUP
from espalier.data.flow.step import CleanStep

# Redaction comes before deduplication: copies that differ in a signature's name are found, and no drop reason can
# hold a name.
_DEFAULT = ("normalise", "replies", "boilerplate", "unwrap", "redact", "length", "dedup")
# Steps that a build puts in by itself.
_OWN = frozenset({"task", "ids"})


def list_specs() -> dict[str, type[Spec]]:
    """The spec of every step a recipe may name, by that name."""
    return {name: load_plugin(GROUP, name).spec for name in sorted(find_plugins(GROUP)) if name not in _OWN}


def find_step(spec: Any) -> CleanStep:
    """The declared step of a step's spec."""
    declared: CleanStep = load_plugin(GROUP, spec.step)
    return declared


def _unite(specs: dict[str, type[Spec]]) -> Any:
    return Annotated[functools.reduce(operator.or_, specs.values()), Field(discriminator="step")]


if TYPE_CHECKING:
    StepSpec = Spec
else:
    StepSpec = _unite(list_specs())

DEFAULT_STEPS: tuple[StepSpec, ...] = tuple(load_plugin(GROUP, name).spec() for name in _DEFAULT)
