"""What a metric is, and how one is found by name.

A metric looks at one case and gives one number; scores, intervals and comparisons are made from those numbers
elsewhere. It is a pure function: the same case gives the same measurement.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.plugins import load_plugin
from espalier.core.types import Spec

GROUP = "espalier.metrics"


@dataclass(frozen=True, slots=True)
class Answered:
    """One case with its answer: all that a metric is shown."""

    id: str
    answer: str
    reference: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """`value` for the case; `parts` break it down by name (each 0 to 1); `why` says in words what was wrong."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    why: str = ""


class Metric(Protocol):
    """`unit` "ratio" promises values from 0 to 1."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def measure(self, case: Answered) -> Measurement: ...


@dataclass(frozen=True, slots=True)
class Ratio:
    """The usual metric: a number from 0 to 1, more is better, made by a function of the case."""

    name: str
    function: Callable[[Answered], Measurement]
    unit: str = "ratio"
    higher_is_better: bool = True

    def measure(self, case: Answered) -> Measurement:
        return self.function(case)


class MetricSpec(Spec):
    """A metric as a recipe names it. `options` are the keyword arguments of its factory."""

    name: str
    options: dict[str, Any] = {}


def make_metric(spec: MetricSpec) -> Metric:
    """Find and build a metric. Raises NotFound for an unknown one, InvalidInput for an option it does not take."""
    factory = load_plugin(GROUP, spec.name)
    parameters = inspect.signature(factory).parameters
    for option in spec.options:
        if option not in parameters:
            hint = did_you_mean(option, parameters) or "it takes no options"
            raise InvalidInput(f"metric {spec.name} has no option {option!r}", hint=hint)
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in spec.options:
            raise InvalidInput(
                f"metric {spec.name} needs the option {name!r}", hint=f"add `{name}: ...` to its options"
            )
    metric: Metric = factory(**spec.options)
    return metric
